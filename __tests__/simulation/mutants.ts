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
    original: 'this.#since = this.#record.epoch === epoch ? this.#shownSince : this.#period + 1',
    changed: 'this.#since = 0 * this.#shownSince',
  },
  {
    invariant: 3,
    mistake: 'a failure of a call that began before the suspicion counts as sampled',
    file: 'circuit/view.ts',
    original: 'this.#isReporter && period >= this.#suspectedSince',
    changed: 'this.#isReporter',
  },
  {
    invariant: 3,
    mistake: 'outcomes under one suspicion count under the next',
    file: 'circuit/shares.ts',
    original: '  if (own === version) return { suspicion: own, started, failures, successes, early }\n',
    changed: '  return { suspicion: version, started, failures, successes, early }\n',
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
    mistake: 'a request that the service rejects counts as a failure',
    file: 'call/judgement.ts',
    original: '? outcomeOfError(error)',
    changed: "? outcomeOfError(error) && 'failure'",
  },
  {
    invariant: 5,
    mistake: 'an addition that is sent again counts again',
    file: 'storage/memory.ts',
    original: 'if (additions.includes(outcomes.id)) return',
    changed: 'if (additions.includes(`not ` + outcomes.id)) return',
  },
  {
    invariant: 6,
    mistake: 'early failures join at once',
    file: 'circuit/suspicion.ts',
    original: 'const early = joins(record, now, settings) ? earlyCount : 0',
    changed: 'const early = joins(record, now, settings) || true ? earlyCount : 0',
  },
  {
    invariant: 6,
    mistake: 'only instances that have reported write the verdict',
    file: 'circuit/outbox.ts',
    original: '    if (trip !== undefined) {\n      const { at, epoch } = trip',
    changed:
      '    if (trip !== undefined && !this.hasSpokenTo(record.version)) return undefined\n' +
      '    if (trip !== undefined) {\n      const { at, epoch } = trip',
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
    mistake: 'every call without an override passes',
    file: 'circuit/admission.ts',
    original: 'const verdict = admit(view, now, this.#settings)',
    changed: "const verdict = view.override === undefined ? 'pass' : admit(view, now, this.#settings)",
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
    mistake: 'a lone decision opens the circuit for the fleet',
    file: 'circuit/outbox.ts',
    original: 'const most = isBacklog ? this.#settings.failureThreshold - 1 : report.row',
    changed: 'const most = report.row',
    from: 20,
  },
  {
    invariant: 9,
    mistake: 'calls wait for a store that does not answer',
    file: 'sync/synchronizer.ts',
    original: 'const giveUpAt = this.#runtime.now() + Math.min(this.#storageTimeout, patience)',
    changed: 'const giveUpAt = this.#runtime.now() + 10 * Math.min(this.#storageTimeout, patience)',
    from: 40,
  },
  {
    invariant: 10,
    mistake: 'the cache lives half as long',
    file: 'circuit/cached-record.ts',
    original: 'Math.min(sentAt + this.throttle.lifetime * lifetime,',
    changed: 'Math.min(sentAt + 0.5 * this.throttle.lifetime * lifetime,',
  },
  {
    invariant: 11,
    mistake: 'a circuit that an operator forced open lets calls pass',
    file: 'circuit/state-machine.ts',
    original: "return forced.state === 'OPEN' ? 'forced' : 'pass'",
    changed: "return forced.state === 'OPEN' ? 'pass' : 'pass'",
  },
  {
    invariant: 11,
    mistake: 'an override counts as over',
    file: 'circuit/state-machine.ts',
    original: '(override.until !== undefined && now >= override.until)',
    changed: '(override.until === undefined || now >= override.until)',
  },
  {
    invariant: 12,
    mistake: 'a close keeps the count',
    file: 'circuit/state-machine.ts',
    original: '    failureCount: 0,\n    reporterCount: 0,\n',
    changed: '    reporterCount: 0,\n',
  },
  {
    invariant: 12,
    mistake: 'another probe erases the successes',
    file: 'circuit/state-machine.ts',
    original: 'return { ...record, version: tokens.version, leases: [...others, lease], updatedAt: now }',
    changed:
      'return { ...record, version: tokens.version, leases: [...others, lease], updatedAt: now, successCount: 0 }',
  },
  {
    invariant: 12,
    mistake: 'an addition replaces the count',
    file: 'storage/record.ts',
    original: 'sums[count] = record[count] + outcomes[counts[count]]',
    changed: 'sums[count] = 0 * record[count] + outcomes[counts[count]]',
  },
  {
    invariant: 13,
    mistake: 'one instance contributes without a limit, though others are known',
    file: 'circuit/suspicion.ts',
    original: 'return Math.ceil(thresholdOf(record, now, settings) / 2)',
    changed: 'return 100 * Math.ceil(thresholdOf(record, now, settings) / 2)',
  },
  {
    invariant: 13,
    mistake: 'every instance counts itself as alone',
    file: 'circuit/suspicion.ts',
    original: 'return !knowsOthers(record, now) || ',
    changed: 'return true || ',
  },
  {
    invariant: 13,
    mistake: 'the failure that raised the suspicion counts in the share of its instance',
    file: 'circuit/suspicion.ts',
    original: 'return reporterCount > 1 || isAlone(record, now, settings)',
    changed: 'return true || isAlone(record, now, settings)',
  },
  {
    invariant: 13,
    mistake: 'an instance relies on the silence of others without a look at the record',
    file: 'circuit/outbox.ts',
    original: "return suspicion(record, readAt, this.#settings) !== 'guilty'",
    changed: "return suspicion(record, readAt, this.#settings) === 'none'",
  },
  {
    invariant: 13,
    mistake: 'an instance that failed a probe probes first again',
    file: 'circuit/probe-claims.ts',
    original: 'if (!this.#isShared || !this.#isInvolved) return this.#delay',
    changed: 'if (this.#settings) return this.#delay',
  },
  {
    invariant: 13,
    mistake: 'an instance that failed a probe probes again among the probes of others',
    file: 'circuit/probe-claims.ts',
    original: 'return knowsOthers(record, now) && now >= updatedAt',
    changed: 'return false && now >= updatedAt',
  },
  {
    invariant: 14,
    mistake: 'a dismissal is never written',
    file: 'circuit/outbox.ts',
    original: "if (suspicion(record, now, this.#settings) !== 'innocent') return undefined",
    changed: 'if (suspicion(record, now, this.#settings)) return undefined',
  },
  {
    invariant: 14,
    mistake: 'a suspicion outlives its window',
    file: 'circuit/suspicion.ts',
    original: 'if (age > settings.window || age < -clockTolerance)',
    changed: 'if (age < -clockTolerance)',
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
