/**
 * The callers' signals. All calls of one signal share a listener, because Node compares each new listener with all others.
 *
 * @module
 */

import type { TimeoutReason } from '../errors.ts'

/** A call that a signal can end. */
interface Cuttable {
  cutBy(by: TimeoutReason | 'caller', error: unknown): void
}

interface Listener {
  readonly calls: Set<Cuttable>
  readonly onAbort: () => void
}

const listeners = new WeakMap<AbortSignal, Listener>()

/** Ends the call when the signal is aborted, until {@link leave}. The signal is not aborted yet. */
export function listen(signal: AbortSignal, call: Cuttable): void {
  let listener = listeners.get(signal)
  if (listener === undefined) {
    const calls = new Set<Cuttable>()
    const onAbort = (): void => {
      for (const each of calls) each.cutBy('caller', signal.reason)
    }
    listener = { calls, onAbort }
    listeners.set(signal, listener)
    signal.addEventListener('abort', onAbort, { once: true })
  }
  listener.calls.add(call)
}

/** The call has ended. The last call removes the listener. */
export function leave(signal: AbortSignal, call: Cuttable): void {
  const listener = listeners.get(signal)
  if (listener?.calls.delete(call) !== true || listener.calls.size > 0) return
  listeners.delete(signal)
  signal.removeEventListener('abort', listener.onAbort)
}
