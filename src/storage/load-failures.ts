/**
 * Says why a client library could not be loaded, and what to do. Loaded when that happens, and imports nothing, so that it
 * shares nothing with what a handler loads.
 *
 * @module
 */

/** The words after “could not load”. */
export function whyNotLoaded(library: string, cause: unknown): string {
  const message = String((cause as Partial<Error> | undefined)?.message ?? cause)
  if (/^Cannot find (module|package)\b/.test(message) && message.includes(`'${library}`)) {
    return `${library}. Install it (npm install ${library}), or let your bundler include it.`
  }
  if (message.startsWith('Dynamic require of')) {
    return (
      `${library}: ${message}. The bundle is an ES module, and ${library} needs require. Let the bundle begin with: ` +
      "import { createRequire } from 'node:module'; const require = createRequire(import.meta.url); (the option banner of " +
      `esbuild). Or bundle to CommonJS, or leave ${library} out of the bundle (external) and deploy it beside it.`
    )
  }
  return `${library}: ${message}`
}
