/**
 * Stryker's Jest runner, made faster: for each mutant it runs only the test files that hold a test which reaches the
 * mutant, one after the other, until one of them fails: first the one that is likely to fail soonest, because it is fast
 * and has noticed the mutants before, which are neighbours. Stryker's own runs all test files for every mutant, to the end.
 *
 * @module
 */

import { readFile, writeFile } from 'node:fs/promises'
import { declareFactoryPlugin, PluginKind } from '@stryker-mutator/api/plugin'
import { TestStatus } from '@stryker-mutator/api/test-runner'
import { strykerPlugins as jestPlugins } from '@stryker-mutator/jest-runner'

const [jest] = jestPlugins

/** In the sandbox; the runners of the mutants are other processes than that of the first run. */
const testsFile = '.mutation-tests.json'

/** What a file costs beyond its tests, in milliseconds. */
const loadTime = 200

export const strykerPlugins = [declareFactoryPlugin(PluginKind.TestRunner, 'bailing-jest', bailingJest)]

function bailingJest(injector) {
  const runner = injector.injectFunction(jest.factory)
  const adapter = runner.jestTestAdapter
  const run = adapter.run.bind(adapter)
  const mutantRun = runner.mutantRun.bind(runner)
  /** Of each test file: the names of its tests, how long they take, and how often it has noticed a mutant of late. */
  let tests
  let reaching

  runner.dryRun = async (options) => {
    const dryRun = Object.getPrototypeOf(runner).dryRun.bind(runner)
    const result = await dryRun(options)
    const ran = (result.tests ?? []).filter(({ status }) => status !== TestStatus.Skipped)
    const files = [...Map.groupBy(ran, ({ fileName }) => fileName)].map(([file, own]) => ({
      file,
      names: own.map(({ id }) => id),
      duration: loadTime + durationOf(own),
      chance: 0.5,
    }))
    await writeFile(testsFile, JSON.stringify(files))
    return result
  }
  runner.mutantRun = async (options) => {
    tests ??= JSON.parse(await readFile(testsFile, 'utf8'))
    reaching = options.testFilter === undefined ? undefined : new Set(options.testFilter)
    return mutantRun(options)
  }
  adapter.run = async (settings) => {
    if (tests === undefined) return run(settings)
    const results = { numRuntimeErrorTestSuites: 0, testResults: [] }
    const files = tests
      .filter(({ names }) => reaching === undefined || names.some((name) => reaching.has(name)))
      .sort((a, b) => a.duration / a.chance - b.duration / b.chance)
    for (const own of files) {
      const names = reaching && own.names.filter((name) => reaching.has(name))
      const { results: ofFile } = await run({ ...settings, testFiles: [own.file], testNamePattern: patternOf(names) })
      results.numRuntimeErrorTestSuites += ofFile.numRuntimeErrorTestSuites
      results.testResults.push(...ofFile.testResults)
      own.chance = Math.max(0.05, 0.8 * own.chance + (ofFile.success ? 0 : 0.2))
      if (!ofFile.success) break
    }
    return { results }
  }
  return runner
}
bailingJest.inject = ['$injector']

function durationOf(tests) {
  return tests.reduce((sum, { timeSpentMs }) => sum + timeSpentMs, 0)
}

function patternOf(names) {
  return names?.map((name) => `^${RegExp.escape(name)}$`).join('|')
}
