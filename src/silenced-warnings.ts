/**
 * Prints a warning if Node prints none. The package loads this file with the first warning that must be visible. The file imports
 * nothing, so a bundler shares no code between it and a handler.
 *
 * @module
 */

/** Prints the warning as an error if the process was started without warnings. Lambda writes it in its log format. */
export function printIfSilenced(warning: string, { execArgv, env }: Pick<NodeJS.Process, 'execArgv' | 'env'>): void {
  const options = [...execArgv, env['NODE_OPTIONS']].join(' ')
  if (/(^|\s)--no-warnings(\s|$)/.test(options) || env['NODE_NO_WARNINGS'] === '1') console.error(warning)
}
