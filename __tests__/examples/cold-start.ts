import diagnostics from 'node:diagnostics_channel'
import { jest } from '@jest/globals'

let set: readonly string[] = []
let instances = 0

/**
 * Starts a new instance of a function: loads its module afresh, with these environment variables and none of those that
 * an instance before had. Diagnostics channels are those of a process, so that each instance gets channels of its own.
 *
 * @example
 * const { handler } = await coldStart(() => import('../../examples/geolocation/handler.ts'), { TABLE_NAME: 'app' })
 */
export async function coldStart<Module>(
  load: () => Promise<Module>,
  variables: Readonly<Record<string, string>>,
): Promise<Module> {
  for (const name of set) delete process.env[name]
  Object.assign(process.env, variables)
  set = Object.keys(variables)
  jest.resetModules()
  const own = (name: string) => `${name} of instance ${instance}`
  const instance = ++instances
  jest.unstable_mockModule('node:diagnostics_channel', () => ({
    channel: (name: string) => diagnostics.channel(own(name)),
    subscribe: (name: string, listener: () => void) => diagnostics.subscribe(own(name), listener),
    unsubscribe: (name: string, listener: () => void) => diagnostics.unsubscribe(own(name), listener),
  }))
  return load()
}
