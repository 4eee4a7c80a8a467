/**
 * A model checker for a fleet: the real engine over the real memory adapter, with every order in which things can happen
 * between a few instances tried out.
 *
 * Between two moves nothing is under way: an instance has done all that it can do at once, and waits for the store, for
 * the service or for its next step. A request to the store takes two moves, because the others can move in between: it
 * is carried out, and it is answered. So a run is a list of moves, each run with the same moves is the same run, and all
 * of them can be enumerated by playing them again from the start, each time with another move at the end.
 *
 * Most orders come to the same. Two things keep the number of runs small, and neither leaves out anything that an
 * instance could do or that could be stored:
 *
 * - An instance is a function of what has reached it. So two runs in which each instance was reached by the same things
 *   in the same order, and in which the same is stored and under way, are in the same situation, and go on alike.
 * - Moves that do not concern each other (two instances get their answers, two requests read) are tried in one order
 *   only: sleep sets, with the bookkeeping that they need together with remembered situations (P. Godefroid,
 *   Partial-Order Methods for the Verification of Concurrent Systems, 1996, chapters 5 and 6); and where an instance
 *   minds nobody else's moves, its own go first (persistent sets, chapter 4).
 *
 * What is a move and what happens when it is made: `interleavings-fleet.ts`. What must hold then, and whether the fleet
 * recovers in the end: `interleavings-checks.ts`.
 *
 * @module
 */

import { seededRandom } from '../support/seeded-random.ts'
import { type Engine, engine as realEngine } from './engine.ts'
import { Fleet, type Move, Names } from './interleavings-fleet.ts'
import type { Scenario } from './interleavings-scenario.ts'

/** What an exploration came to. */
export interface Exploration {
  /** Distinct situations that were reached. */
  readonly situations: number
  /** Moves that were made to get from one to the next, without those that only led back to where one was. */
  readonly moves: number
  /** Distinct situations in which everything had happened: from each the fleet recovered. */
  readonly ends: number
  /** What they came to, and how many of them. */
  readonly outcomes: ReadonlyMap<string, number>
  /** Runs from the start. */
  readonly runs: number
  /** Whether nothing was left out. */
  readonly isComplete: boolean
}

/** What playing a list of moves came to. */
export interface Replay {
  readonly violation: string | undefined
  /** The moves that were made: those of the list that were possible, and the rest of the run. */
  readonly made: readonly string[]
  /** What happened, to be read. */
  readonly trace: readonly string[]
}

export interface ExploreOptions {
  /** Gives up after so many situations. */
  readonly limit?: number
  /** Visits also the situations that need not be visited: for a test of the reduction. */
  readonly visitsAll?: boolean
  readonly engine?: Engine
}

/** What must not be, with the moves that lead there. */
export class InterleavingError extends Error {
  override readonly name = 'InterleavingError'
  readonly moves: readonly string[]
  readonly violation: string

  constructor(scenario: Scenario, moves: readonly string[], violation: string, trace: readonly string[]) {
    super(`${scenario.name}: ${violation}\n\n  moves: ${moves.join(' ')}\n\n${trace.join('\n')}`)
    this.moves = moves
    this.violation = violation
  }
}

/**
 * Tries out every order. Only outside of promise reactions: see `inMacrotask`.
 *
 * @throws {InterleavingError} with the shortest list of moves that could be found from the first that went wrong
 */
export function explore(scenario: Scenario, options: ExploreOptions = {}): Exploration {
  return new Explorer(scenario, options).run()
}

/** Tries out orders by lot: for scenarios with too many of them. Throws as {@link explore} does. */
export function sample(scenario: Scenario, runs: number, seed: number, engine: Engine = realEngine): Exploration {
  const names = new Names()
  const random = seededRandom(seed)
  const situations = new Set<string>()
  const ends = new Set<string>()
  const outcomes = new Map<string, number>()
  let moves = 0
  for (let run = 0; run < runs; run++) {
    const fleet = new Fleet(scenario, engine, names)
    const made: string[] = []
    for (;;) {
      const move = draw(fleet.moves(), random)
      if (move === undefined) break
      made.push(move.key)
      fleet.make(move)
      moves++
      situations.add(fleet.situation())
      if (fleet.violation !== undefined) throw shortest(scenario, engine, made)
    }
    const end = fleet.situation()
    if (ends.has(end)) continue
    ends.add(end)
    count(outcomes, fleet.outcome)
    fleet.recover()
    if (fleet.violation !== undefined) throw shortest(scenario, engine, made)
  }
  return { situations: situations.size, moves, ends: ends.size, outcomes, runs, isComplete: false }
}

/** Plays a list of moves, and says what happens. Moves that are not possible are left out. */
export function replay(scenario: Scenario, moves: string | readonly string[], engine: Engine = realEngine): Replay {
  const keys = typeof moves === 'string' ? moves.split(' ').filter((key) => key !== '') : moves
  const trace: string[] = []
  return { ...play(scenario, engine, keys, trace), trace }
}

function count(outcomes: Map<string, number>, outcome: string): void {
  outcomes.set(outcome, (outcomes.get(outcome) ?? 0) + 1)
}

/** What goes wrong is rare; most of what happens should. */
const faultProbability = 0.04

function draw(moves: readonly Move[], random: () => number): Move | undefined {
  const faults = moves.filter(({ isFault }) => isFault)
  const regular = moves.filter(({ isFault }) => !isFault)
  const pool =
    regular.length === 0 || (faults.length > 0 && random() < faultProbability * faults.length) ? faults : regular
  // Only when nothing else is left to happen is a fault no choice.
  return regular.length === 0 ? undefined : pool[Math.floor(random() * pool.length)]
}

/** Plays what can be played of the moves, then whatever comes first until nothing is left, then the recovery. */
function play(scenario: Scenario, engine: Engine, keys: readonly string[], trace?: string[]): Omit<Replay, 'trace'> {
  const fleet = new Fleet(scenario, engine, new Names(), trace)
  const made: string[] = []
  const make = (move: Move): void => {
    made.push(move.key)
    fleet.make(move)
  }
  for (const key of keys) {
    if (fleet.violation !== undefined) break
    const move = fleet.moves().find((one) => one.key === key)
    if (move !== undefined) make(move)
  }
  while (fleet.violation === undefined) {
    const next = fleet.moves().find(({ isFault }) => !isFault)
    if (next === undefined) break
    make(next)
  }
  if (fleet.violation === undefined) fleet.recover()
  return { violation: fleet.violation, made }
}

/** Leaves out whatever move can be left out. */
function shortest(scenario: Scenario, engine: Engine, moves: readonly string[]): InterleavingError {
  let kept = [...moves]
  for (let isShorter = true; isShorter; ) {
    isShorter = false
    for (let index = kept.length - 1; index >= 0; index--) {
      const fewer = kept.toSpliced(index, 1)
      if (play(scenario, engine, fewer).violation === undefined) continue
      kept = fewer
      isShorter = true
    }
  }
  const trace: string[] = []
  const { violation, made } = play(scenario, engine, kept, trace)
  return new InterleavingError(scenario, made, violation ?? 'not reproduced: the run depends on something else', trace)
}

/** A situation on the way to the present one. */
interface Junction {
  /** What is still to be tried from here. */
  readonly todo: Move[]
  /** What need not be tried: what it leads to is, or was, reached in another order. */
  readonly asleep: Map<string, Move>
  /** The move that was tried last. */
  taken: Move | undefined
}

class Explorer {
  readonly #scenario: Scenario
  readonly #engine: Engine
  readonly #limit: number
  readonly #visitsAll: boolean
  readonly #names = new Names()
  /** The moves that were asleep each time a situation was met: they are yet to be tried from there. */
  readonly #untried = new Map<string, Set<string>>()
  readonly #path: Junction[] = []
  #fleet: Fleet
  #moves = 0
  #ends = 0
  #runs = 0
  readonly #outcomes = new Map<string, number>()

  constructor(scenario: Scenario, { limit = 1_000_000, visitsAll = false, engine = realEngine }: ExploreOptions) {
    this.#scenario = scenario
    this.#engine = engine
    this.#limit = limit
    this.#visitsAll = visitsAll
    this.#fleet = this.#again()
  }

  run(): Exploration {
    let isThere = this.#enter(new Map())
    while (this.#path.length > 0) {
      const junction = this.#path[this.#path.length - 1] as Junction
      const move = junction.todo.pop()
      if (move === undefined) {
        this.#path.pop()
        isThere = false
        continue
      }
      if (this.#untried.size >= this.#limit) return this.#result(false)
      if (!isThere) this.#fleet = this.#again()
      const asleep = new Map([...junction.asleep].filter(([, other]) => areIndependent(other, move)))
      junction.asleep.set(move.key, move)
      junction.taken = move
      this.#make(this.#fleet, move)
      this.#moves++
      isThere = this.#enter(asleep)
    }
    return this.#result(true)
  }

  #result(isComplete: boolean): Exploration {
    const [situations, moves, ends, outcomes, runs] = [
      this.#untried.size,
      this.#moves,
      this.#ends,
      this.#outcomes,
      this.#runs,
    ]
    return { situations, moves, ends, outcomes, runs, isComplete }
  }

  /** Plays again what leads to the last junction. */
  #again(): Fleet {
    this.#runs++
    const fleet = new Fleet(this.#scenario, this.#engine, this.#names)
    for (const { taken } of this.#path.slice(0, -1)) this.#make(fleet, taken as Move)
    return fleet
  }

  #make(fleet: Fleet, move: Move): void {
    fleet.make(move)
    if (fleet.violation !== undefined) throw this.#failure()
  }

  #failure(): InterleavingError {
    const moves = this.#path.flatMap(({ taken }) => taken?.key ?? [])
    return shortest(this.#scenario, this.#engine, moves)
  }

  /** @returns whether the fleet is still where it was: at a new junction with something to try */
  #enter(asleep: Map<string, Move>): boolean {
    const fleet = this.#fleet
    const situation = fleet.situation()
    const untried = this.#untried.get(situation)
    const moves = fleet.moves()
    let todo: Move[]
    if (untried === undefined) {
      this.#untried.set(situation, new Set(asleep.keys()))
      if (!moves.some(({ isFault }) => !isFault)) {
        this.#ends++
        count(this.#outcomes, fleet.outcome)
        fleet.recover()
        if (fleet.violation !== undefined) throw this.#failure()
        return false
      }
      const enough = this.#visitsAll ? moves : fleet.enoughOf(moves)
      todo = enough.filter(({ key }) => !asleep.has(key))
    } else {
      todo = moves.filter(({ key }) => untried.has(key) && !asleep.has(key))
      for (const { key } of todo) untried.delete(key)
      for (const key of asleep.keys()) if (!untried.has(key)) asleep.delete(key)
    }
    if (todo.length === 0) return false
    this.#path.push({ todo: todo.reverse(), asleep, taken: undefined })
    return true
  }
}

/** Whether the order of two moves that are possible now makes no difference to anyone. */
function areIndependent(one: Move, other: Move): boolean {
  if (one.concernsAll || other.concernsAll) return false
  const [isOneAtStore, isOtherAtStore] = [isAtStore(one), isAtStore(other)]
  if (isOneAtStore && isOtherAtStore) return one.readsOnly && other.readsOnly
  if (isOneAtStore || isOtherAtStore) {
    const isSameRequest = one.owner === other.owner && one.number === other.number
    return (
      one.kind !== 'kill' &&
      other.kind !== 'kill' &&
      !(isSameRequest && (one.kind === 'vanish' || other.kind === 'vanish'))
    )
  }
  if (one.isFault && other.isFault) return false
  return one.owner !== other.owner
}

function isAtStore({ kind }: Move): boolean {
  return kind === 'arrive' || kind === 'delete'
}
