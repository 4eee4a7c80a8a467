import { TestEnvironment } from 'jest-environment-node'

/** Tests that are not run, by their names. */
const leftOut = process.env.MUTATION_LEFT_OUT ? new RegExp(process.env.MUTATION_LEFT_OUT) : undefined

/**
 * Skips the rest of a test file once one of its tests has failed, because a mutant needs to be killed only once, and the
 * tests that are left out.
 */
export default class extends TestEnvironment {
  #hasFailed = false

  handleTestEvent(event) {
    if (event.name === 'test_fn_failure' || event.name === 'hook_failure') this.#hasFailed = true
    if (event.name !== 'test_start') return
    if (this.#hasFailed || leftOut?.test(nameOf(event.test))) event.test.mode = 'skip'
  }
}

function nameOf({ name, parent }) {
  return parent?.parent ? `${nameOf(parent)} ${name}` : name
}
