import type { Instance } from './instance.ts'
import type { CallRecord, StoreRequest } from './observer.ts'

/** How a call ended that counts. */
export type Kind = 'failure' | 'success'

interface Outcome {
  readonly kind: Kind
  /** The epoch that its call began in. */
  page: string
  /** The event in which its call began. */
  readonly began: number
  /** When it ended, in milliseconds since the epoch. */
  readonly at: number
  isSpent: boolean
}

/** What was taken out of a ledger. */
export interface Spent {
  /** How many were not there. */
  readonly missing: number
  /** How many there were elsewhere: of another epoch, or from before the suspicion. */
  readonly elsewhere: number
}

/** The page of outcomes whose epoch was never stored: of an instance that knew nothing, or was on its own. */
export const unstored = '(none stored)'

/** Nothing older than this counts anywhere, in milliseconds. */
const memory = 200_000

/** The outcomes that each instance has seen, and which of them are counted in a record. */
export class Ledger {
  readonly #books = new Map<Instance, Outcome[]>()
  /** What was counted by an instance of which a write was not answered: it may be one that was sent twice. */
  readonly #unanswered = new Map<StoreRequest, Outcome[]>()

  enter(kind: Kind, { instance, startedIn = 0 }: CallRecord, page: string, at: number): void {
    const book = this.#bookOf(instance)
    while (book[0] !== undefined && book[0].at < at - memory) book.shift()
    book.push({ kind, page, began: startedIn, at, isSpent: false })
  }

  /**
   * Takes outcomes that are to be counted.
   *
   * @param since only of calls that began in this event or later
   */
  spend(kind: Kind, amount: number, request: StoreRequest, epoch: string, since = 0): Spent {
    const fitting: Outcome[] = []
    let elsewhere = 0
    for (const outcome of this.#bookOf(request.instance)) {
      if (outcome.kind !== kind || outcome.isSpent) continue
      if (isOn(outcome, epoch) && outcome.began >= since) fitting.push(outcome)
      else elsewhere++
    }
    this.#take(fitting.slice(0, amount), request)
    return { missing: Math.max(0, amount - fitting.length), elsewhere }
  }

  /** Takes failures in a row, the last of which is not older than `window`. They may have counted in an earlier suspicion. */
  spendRow(amount: number, request: StoreRequest, epoch: string, window: number): Spent {
    const { sentAt } = request
    const book = this.#bookOf(request.instance).filter((outcome) => isOn(outcome, epoch) && outcome.at <= sentAt)
    let row: Outcome[] = []
    let longest: Outcome[] = []
    for (const outcome of book) {
      // An instance that refuses by itself goes on with its row, however far apart its own probes are.
      row = outcome.kind === 'success' ? [] : [...row, outcome]
      if (sentAt - outcome.at <= window + 1 && row.length >= longest.length) longest = row
    }
    this.#take(longest.slice(0, amount), request)
    const elsewhere = this.#bookOf(request.instance).filter(({ kind }) => kind === 'failure').length - longest.length
    return { missing: Math.max(0, amount - longest.length), elsewhere }
  }

  #take(outcomes: readonly Outcome[], request: StoreRequest): void {
    for (const outcome of outcomes) outcome.isSpent = true
    this.#unanswered.set(request, [...(this.#unanswered.get(request) ?? []), ...outcomes])
  }

  /** Every write of an instance was answered: it knows what was counted. */
  answered(instance: Instance): void {
    for (const request of this.#unanswered.keys()) {
      if (request.instance === instance) this.#unanswered.delete(request)
    }
  }

  /** What was counted went with its record. Who has not heard that it was may count it again. */
  destroyed(): void {
    for (const outcomes of this.#unanswered.values()) {
      for (const outcome of outcomes) {
        outcome.isSpent = false
        outcome.page = unstored
      }
    }
    this.#unanswered.clear()
  }

  #bookOf(instance: Instance): Outcome[] {
    let book = this.#books.get(instance)
    if (book === undefined) {
      book = []
      this.#books.set(instance, book)
    }
    return book
  }
}

function isOn({ page }: Outcome, epoch: string): boolean {
  return page === epoch || page === unstored
}
