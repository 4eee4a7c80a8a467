/**
 * Refuses tests that decide by real time, which pass on a quiet machine and fail on a busy one: `node
 * scripts/test-timing.ts`, a part of `npm run lint`. `__tests__/support/time.ts` has what tests use instead.
 *
 * @module
 */

import { globSync, readFileSync } from 'node:fs'

/** Files that take their time as a test tells them: services, handlers, and the measurements that are printed. */
const takeTheirTime: readonly RegExp[] = [
  /^__tests__\/support\/time\.ts$/,
  /^__tests__\/support\/(http-service|fleet-worker|fault-proxy)\.ts$/,
  /^__tests__\/lambda\/(handlers\/.*|environment|runtime-api)\.ts$/,
  /^__tests__\/clients\/(servers|observe)\.ts$/,
]

interface Rule {
  readonly pattern: RegExp
  /** The mistake, and the right way. */
  readonly advice: string
  /** Whether it holds for files that take their time, too. */
  readonly always?: true
}

const rules: readonly Rule[] = [
  {
    pattern: /setTimeout\b.*from 'node:timers\/promises'|new Promise\b.*\bsetTimeout\(/,
    advice: 'A fixed sleep: wait for the state with waitFor(); a time that has to be outlasted is outlast()’s.',
  },
  {
    pattern: /\b(?:Date|performance)\.now\(\) - |\.hrtime\b.* - /,
    advice: 'A difference of real instants: use stopwatch() with expectAtLeast() or expectUnhurried().',
  },
  {
    pattern:
      /expect\([^)]*(?:\b(?:took|elapsed|lasted|slowest|startedAt|watch\(\))|[dD]uration|[eE]lapsed|Took)\b.*\.toBe(?:Less|Greater)/,
    advice:
      'A bound on real time: use expectAtLeast() for what is promised, else expectUnhurried(), or decide by order.',
  },
  {
    pattern: /\brace\(.*\b(?:sleep|outlast)\(|\b(?:sleep|outlast)\(.*\brace\(/,
    advice: 'A race against the clock: decide by order, or wait for the state with waitFor().',
    always: true,
  },
  {
    pattern: /^\s*\},? ?\d[\d_]*,?\)$|^\s{4}\d[\d_]{4,},$|jest\.setTimeout\(/,
    advice: 'A time limit of a test’s own: jest.config.js has one for all, longer than waitFor() waits.',
    always: true,
  },
]

const problems = globSync('__tests__/**/*.ts')
  .sort()
  .flatMap((path) => {
    const isExempt = takeTheirTime.some((pattern) => pattern.test(path))
    return readFileSync(path, 'utf8')
      .split('\n')
      .flatMap((line, index) =>
        rules
          .filter(({ pattern, always }) => (always || !isExempt) && pattern.test(line))
          .map(({ advice }) => `${path}:${index + 1}: ${advice}\n    ${line.trim()}`),
      )
  })

if (problems.length > 0) {
  console.error(problems.join('\n'))
  console.error(`\n${problems.length} places where a test decides by real time.`)
  process.exitCode = 1
}
