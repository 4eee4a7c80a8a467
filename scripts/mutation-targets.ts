/** One file that is mutated, and the tests that have to notice. */
export interface MutationTarget {
  readonly name: string
  readonly file: string
  /** Below `__tests__`. */
  readonly tests: readonly string[]
  /** Tests that are not run, by the beginning of their names. */
  readonly leftOut?: RegExp
  /** The longest a test may take, in milliseconds; default 5000. A mutant that makes a test wait for ever costs this. */
  readonly timeout?: number
  /** The real server that the tests need. */
  readonly server?: 'dynamodb' | 'redis'
}

/** Why tests are left out: each of them starts servers of its own or waits for real time, seconds for every mutant. */
const slowRedisTests = [
  'a database other than 0 with ioredis 5',
  'a database other than 0 with ioredis 6 is not replaced either',
  'a replica',
  'a server that (dies|asks who is there)',
  'the storage in Redis fulfils the contract with (ioredis 5|iovalkey|node-redis)',
  'the storage in Redis (makes its own client of ioredis 5|does not keep connecting|gives up a connection|rejects when the server stalls|says that a script|changes nothing when)',
].join('|')

/** Seconds for every mutant that the other tests leave alive. */
const randomTests = /^whatever (the order of calls|fails, trips)/

/** The tests of calls, circuits and operators go through the engine's face. */
const engineTests = [
  'unit/circuit-breaker*.test.ts',
  'unit/operators*.test.ts',
  'unit/call/*.test.ts',
  'unit/circuit/*.test.ts',
  'unit/sync/*.test.ts',
]

export const mutationTargets: readonly MutationTarget[] = [
  // All files of `src/circuit` but `step.ts` and `world.ts`, which hold types only.
  { name: 'state-machine', file: 'src/circuit/state-machine.ts', tests: ['unit/circuit/state-machine.test.ts'] },
  ...[
    'admission',
    'cached-record',
    'circuit',
    'forget-oldest',
    'lone-decision',
    'outbox',
    'own-calls',
    'probe-claims',
    'refusal',
    'shares',
    'snapshot',
    'stance',
    'state-change',
    'streak',
    'suspicion',
    'throttle',
    'transition-log',
    'view',
  ].map((name) => ({
    name,
    file: `src/circuit/${name}.ts`,
    tests: ['unit/circuit/*.test.ts', 'unit/sync/*.test.ts'],
    leftOut: randomTests,
  })),
  ...['synchronizer', 'circuit-reader'].map((name) => ({
    name,
    file: `src/sync/${name}.ts`,
    tests: engineTests,
    leftOut: randomTests,
  })),
  ...['guard', 'call-options', 'wrong-call'].map((name) => ({
    name,
    file: `src/call/${name}.ts`,
    tests: engineTests,
    leftOut: randomTests,
  })),
  {
    name: 'circuit-breaker',
    file: 'src/circuit-breaker.ts',
    tests: [...engineTests, 'unit/middleware.test.ts'],
    leftOut: randomTests,
  },
  { name: 'operators', file: 'src/operators.ts', tests: ['unit/operators*.test.ts'], leftOut: randomTests },
  { name: 'middleware', file: 'src/middleware.ts', tests: ['unit/middleware.test.ts'] },
  ...['call-limits', 'invocation'].map((name) => ({
    name,
    file: `src/call/${name}.ts`,
    tests: ['unit/call/call-limits.test.ts', 'unit/call/timeout.test.ts'],
  })),
  { name: 'semaphore', file: 'src/call/semaphore.ts', tests: ['unit/call/semaphore.test.ts'] },
  { name: 'retry-after', file: 'src/failures/retry-after.ts', tests: ['unit/failures/retry-after.test.ts'] },
  ...['store-access', 'store-pause', 'record', 'memory'].map((name) => ({
    name,
    file: `src/storage/${name}.ts`,
    tests: [`unit/storage/${name}.test.ts`],
  })),
  {
    name: 'replies',
    file: 'src/storage/replies.ts',
    tests: ['unit/storage/replies.test.ts', 'unit/storage/store-access.test.ts'],
  },
  {
    name: 'option-rules',
    file: 'src/settings/option-rules.ts',
    tests: ['unit/storage/factory.test.ts', 'unit/storage/*/options.test.ts'],
  },
  {
    name: 'dynamodb-options',
    file: 'src/storage/dynamodb/options.ts',
    tests: ['unit/storage/dynamodb/options.test.ts'],
  },
  ...['index', 'storage', 'expressions', 'client', 'chunks', 'errors'].map((part) => ({
    name: `dynamodb-${part}`,
    file: `src/storage/dynamodb/${part}.ts`,
    tests: ['unit/storage/dynamodb/*.test.ts', 'integration/dynamodb-storage.test.ts'],
    leftOut:
      /^the storage in (dynalite|DynamoDB Local fulfils the contract: (reading takes batches|any history|increments and replaces together))/,
    timeout: 10_000,
    server: 'dynamodb' as const,
  })),
  { name: 'redis-options', file: 'src/storage/redis/options.ts', tests: ['unit/storage/redis/options.test.ts'] },
  ...['index', 'storage', 'scripts', 'hash', 'client', 'errors'].map((part) => ({
    name: `redis-${part}`,
    file: `src/storage/redis/${part}.ts`,
    tests: ['unit/storage/redis/*.test.ts', 'integration/redis-storage.test.ts'],
    leftOut: new RegExp(
      `^(${slowRedisTests}|the storage in Redis fulfils the contract with ioredis 6: a store that is down)`,
    ),
    timeout: 10_000,
    server: 'redis' as const,
  })),
]

/** Stryker's report about a target, from the root of the project. */
export function reportOf({ name }: MutationTarget): string {
  return `reports/mutation/${name}.json`
}
