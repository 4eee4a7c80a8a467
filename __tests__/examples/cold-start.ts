import { jest } from '@jest/globals'

let set: readonly string[] = []

/**
 * Starts a new instance of a function: loads its module afresh, with these environment variables and none of those that
 * an instance before had.
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
  return load()
}
