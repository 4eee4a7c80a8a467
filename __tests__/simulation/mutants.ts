import { cpSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { fileURLToPath, pathToFileURL } from 'node:url'
import type { Engine } from './engine.ts'
import type { InvariantNumber } from './invariants.ts'
import { simulate } from './simulation.ts'

/** One line of the engine or of an adapter, changed so that an invariant no longer holds. */
export interface Mutant {
  readonly invariant: InvariantNumber
  readonly mistake: string
  /** A file in `src` … */
  readonly file: string
  /** … what stands there once … */
  readonly original: string
  /** … and what stands there instead. */
  readonly changed: string
  /** Where the hunt begins, for what few runs bring about. Default: seed 1. */
  readonly from?: number
}

export const mutants: readonly Mutant[] = [
  {
    invariant: 1,
    mistake: 'one probe more than allowed',
    file: 'circuit/state-machine.ts',
    original: '.length < settings.halfOpenMaxConcurrent ? ',
    changed: '.length <= settings.halfOpenMaxConcurrent ? ',
  },
  {
    invariant: 2,
    mistake: 'a lease never expires',
    file: 'circuit/state-machine.ts',
    original: 'return ahead > 0 && ahead <= maxLease + clockTolerance',
    changed: 'return ahead <= maxLease + clockTolerance',
  },
  {
    invariant: 3,
    mistake: 'outcomes count in whatever epoch it is',
    file: 'circuit/view.ts',
    original: 'return period === this.#period && this.#record.state',
    changed: 'return this.#record.state',
  },
  {
    invariant: 3,
    mistake: 'what is deleted and grows again is not told apart',
    file: 'sync/synchronizer.ts',
    original: 'storage.incrementFailures(this.storageKey, write.version, write.increment)',
    changed: 'storage.incrementFailures(this.storageKey, undefined, write.increment)',
    from: 40,
  },
  {
    invariant: 3,
    mistake: 'the adapter replaces whatever is there',
    file: 'storage/memory.ts',
    original: 'return current?.version === version ?',
    changed: 'return version || true ?',
  },
  {
    invariant: 4,
    mistake: 'an event fires again whenever its transition is seen',
    file: 'circuit/transition-log.ts',
    original: '      this.#confirmed.add(epoch)\n',
    changed: '',
  },
  {
    invariant: 4,
    mistake: 'the record forgets who changed it',
    file: 'circuit/state-machine.ts',
    original: 'transitions: [...record.transitions, tokens.epoch].slice(-keptTransitions)',
    changed: 'transitions: []',
  },
  {
    invariant: 5,
    mistake: 'a request that was wrong counts as a failure',
    file: 'call/guard.ts',
    original: "this.circuit.settings.isBreakableError, error) ? 'failure' : 'ignored'",
    changed: "this.circuit.settings.isBreakableError, error) ? 'failure' : 'failure'",
  },
  {
    invariant: 5,
    mistake: 'an increment that is sent again counts again',
    file: 'storage/memory.ts',
    original: 'if (increments.includes(id)) return',
    changed: 'if (increments.includes(`not ` + id)) return',
  },
  {
    invariant: 6,
    mistake: 'only an exact count trips',
    file: 'circuit/state-machine.ts',
    original: 'if (total >= settings.failureThreshold) {',
    changed: 'if (total === settings.failureThreshold) {',
    from: 190,
  },
  {
    invariant: 7,
    mistake: 'an open circuit may be probed at any time',
    file: 'circuit/state-machine.ts',
    original: "return isRetryDue(record, now, settings) ? 'claim' : 'open'",
    changed: "return settings ? 'claim' : 'open'",
  },
  {
    invariant: 7,
    mistake: 'whatever is not overridden passes',
    file: 'circuit/circuit.ts',
    original: 'const verdict = admit(view, now, this.settings)',
    changed: "const verdict = view.override === undefined ? 'pass' : admit(view, now, this.settings)",
  },
  {
    invariant: 8,
    mistake: 'a clock that was an hour ahead is believed',
    file: 'circuit/state-machine.ts',
    original: 'return ahead <= 0 || ahead > longest + clockTolerance',
    changed: 'return ahead <= 0 || ahead > longest + 100 * clockTolerance',
  },
  {
    invariant: 9,
    mistake: 'what an instance found out alone opens the circuit for everyone',
    file: 'circuit/outbox.ts',
    original: 'const backlog = Math.min(report.backlog, Math.max(0, failureThreshold - 1 - live))',
    changed: 'const backlog = report.backlog',
    from: 20,
  },
  {
    invariant: 9,
    mistake: 'a store that does not answer is waited for',
    file: 'sync/synchronizer.ts',
    original: 'const giveUpAt = this.#runtime.now() + this.#storageTimeout',
    changed: 'const giveUpAt = this.#runtime.now() + 10 * this.#storageTimeout',
    from: 40,
  },
  {
    invariant: 10,
    mistake: 'the cache lives half as long',
    file: 'circuit/cached-record.ts',
    original: 'this.#staleAt = sentAt + this.#cacheTtl *',
    changed: 'this.#staleAt = sentAt + 0.5 * this.#cacheTtl *',
  },
  {
    invariant: 11,
    mistake: 'what an operator forced open lets calls pass',
    file: 'circuit/state-machine.ts',
    original: "return forced.state === 'OPEN' ? 'forced' : 'pass'",
    changed: "return forced.state === 'OPEN' ? 'pass' : 'pass'",
  },
  {
    invariant: 11,
    mistake: 'an override is taken for one that is over',
    file: 'circuit/state-machine.ts',
    original: '(override.until !== undefined && now >= override.until)',
    changed: '(override.until === undefined || now >= override.until)',
  },
  {
    invariant: 12,
    mistake: 'a close keeps the count',
    file: 'circuit/state-machine.ts',
    original: '    failureCount: 0,\n    openedAt: undefined,',
    changed: '    openedAt: undefined,',
  },
  {
    invariant: 12,
    mistake: 'another probe erases the successes',
    file: 'circuit/state-machine.ts',
    original: 'return { ...record, version: tokens.version, leases: [...others, lease], updatedAt: now }',
    changed:
      'return { ...record, version: tokens.version, leases: [...others, lease], updatedAt: now, successCount: 0 }',
  },
]

const sources = fileURLToPath(new URL('../../src/', import.meta.url))

/** What became of a mutant: in which run the checker found it out. */
export interface Verdict {
  /** The seed whose run violated the invariant; `undefined`: none did. */
  readonly seed: number | undefined
  readonly message: string
  /** How many runs violated another invariant before. */
  readonly others: number
}

/** Runs so many seeds with a broken engine, until its invariant is violated. */
export async function hunt(mutant: Mutant, seeds: number): Promise<Verdict> {
  const directory = mkdtempSync(join(tmpdir(), 'circuit-mutant-'))
  try {
    const engine = await mutate(directory, mutant)
    const { from = 1 } = mutant
    let others = 0
    for (let seed = from; seed < from + seeds; seed++) {
      const { violation } = await simulate({ seed, engine })
      if (violation?.invariant === mutant.invariant) return { seed, message: violation.message, others }
      if (violation !== undefined) others++
    }
    return { seed: undefined, message: '', others }
  } finally {
    rmSync(directory, { recursive: true })
  }
}

/** Copies the engine, with the mistake in it. */
async function mutate(directory: string, { file, original, changed }: Mutant): Promise<Engine> {
  cpSync(sources, directory, { recursive: true })
  const path = join(directory, file)
  const parts = readFileSync(path, 'utf8').split(original)
  if (parts.length !== 2) throw new Error(`${file} has ${parts.length - 1} times: ${original}`)
  writeFileSync(path, parts.join(changed))
  return (await import(pathToFileURL(join(directory, 'index.ts')).href)) as Engine
}
