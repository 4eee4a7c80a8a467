import { subscribe, unsubscribe } from 'node:diagnostics_channel'
import type { CircuitChannels } from '../../src/index.ts'

/** Collects what is published on a channel, until it is disposed of. */
export function listenTo<Name extends keyof CircuitChannels>(
  name: Name,
): Disposable & { readonly events: readonly CircuitChannels[Name][] } {
  const events: CircuitChannels[Name][] = []
  const listener = (event: unknown): void => void events.push(event as CircuitChannels[Name])
  subscribe(name, listener)
  return { events, [Symbol.dispose]: () => void unsubscribe(name, listener) }
}
