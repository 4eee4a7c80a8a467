/**
 * Prints a warning where Node does not. Loaded with the first warning that must be seen, and imports nothing, so that it
 * shares nothing with what a handler loads.
 *
 * @module
 */

/** Prints it as an error if the process was started without warnings. Lambda makes of that what its log format asks for. */
export function printIfSilenced(warning: string, { execArgv, env }: Pick<NodeJS.Process, 'execArgv' | 'env'>): void {
  const options = [...execArgv, env['NODE_OPTIONS']].join(' ')
  if (/(^|\s)--no-warnings(\s|$)/.test(options) || env['NODE_NO_WARNINGS'] === '1') console.error(warning)
}
