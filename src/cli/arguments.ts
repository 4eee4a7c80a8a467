/**
 * The commands of the command line, their options, and their help.
 *
 * @module
 */

import { type ParseArgsOptionsConfig, parseArgs } from 'node:util'
import { nearest } from '../settings/problems.ts'
import { parseDuration } from './times.ts'

/** The values of a command's options, by name. */
export type Values = Readonly<Record<string, string | boolean | undefined>>

/** A command, the circuits that it names and its options. */
export interface Request {
  readonly command: CommandName
  readonly keys: readonly string[]
  readonly values: Values
}

/** The program was called with wrong arguments. The message is printed without a stack, and the exit code is 2. */
export class UsageError extends Error {
  override readonly name = 'UsageError'
}

interface Option {
  readonly type: 'string' | 'boolean'
  readonly short?: string
  /** The name of the value in the help. */
  readonly value?: string
  readonly help: string
}

/** The options that name the store of the circuits. Every command has them. */
const placeOptions: Readonly<Record<string, Option>> = {
  function: {
    type: 'string',
    short: 'f',
    value: 'NAME',
    help: 'use the store and the settings of this deployed Lambda function',
  },
  table: { type: 'string', short: 't', value: 'NAME', help: 'the DynamoDB table (CIRCUIT_BREAKER_TABLE_NAME)' },
  'partition-key': { type: 'string', value: 'NAME', help: "the table's partition key, default PK" },
  'sort-key': {
    type: 'string',
    value: 'NAME',
    help: "the table's sort key, default SK; none: the table has no sort key",
  },
  redis: { type: 'string', short: 'r', value: 'URL', help: 'the URL of Redis (CIRCUIT_BREAKER_REDIS_URL)' },
  'key-prefix': { type: 'string', value: 'TEXT', help: 'the prefix of the keys in Redis, default circuit:' },
  namespace: { type: 'string', short: 'n', value: 'NAME', help: 'the namespace (CIRCUIT_BREAKER_NAMESPACE)' },
  json: { type: 'boolean', help: 'print JSON' },
  help: { type: 'boolean', short: 'h', help: 'print this help' },
}

const reasonOptions: Readonly<Record<string, Option>> = {
  why: {
    type: 'string',
    short: 'w',
    value: 'TEXT',
    help: 'the reason, which the journal and the circuit show; required',
  },
  by: { type: 'string', value: 'NAME', help: 'your name; default: your AWS identity or your user name' },
}

const untilOptions: Readonly<Record<string, Option>> = {
  for: { type: 'string', value: 'TIME', help: 'the duration, for instance 90s, 10m, 2h or 1d; default: until reset' },
  until: { type: 'string', value: 'INSTANT', help: 'the end, for instance 2030-01-31T12:00Z' },
}

interface Command {
  /** How many circuits the command takes: none, at most one, one, or at least one. */
  readonly keys: 'none' | 'optional' | 'one' | 'some'
  readonly summary: string
  readonly help: string
  readonly options: Readonly<Record<string, Option>>
  readonly example: string
}

/** The names of the commands. */
export type CommandName = 'ls' | 'show' | 'explain' | 'log' | 'watch' | 'open' | 'close' | 'reset' | 'doctor' | 'serve'

/** The commands by name. */
export const commands: Readonly<Record<CommandName, Command>> = {
  ls: {
    keys: 'none',
    summary: 'list the stored circuits',
    help: 'Lists the stored circuits with their state. Nothing is stored for a service without a failure in two days. Without --namespace it lists all namespaces.',
    options: { open: { type: 'boolean', help: 'list only the circuits that refuse calls' } },
    example: 'mcb ls --table orders',
  },
  show: {
    keys: 'one',
    summary: 'print the stored record of a circuit',
    help: 'Prints the record of a circuit, field by field.',
    options: {},
    example: 'mcb show stripe --table orders',
  },
  explain: {
    keys: 'one',
    summary: 'explain why a circuit is in its state, and what to do',
    help: 'Explains a circuit in words: its state and since when, the evidence, the function and request that opened it, the last failure, the next probe, the result of a call now, and what to do.',
    options: {},
    example: 'mcb explain stripe --function checkout',
  },
  log: {
    keys: 'optional',
    summary: 'print the journal: each transition, and who caused it',
    help: 'Prints the journal of a circuit, or of all circuits, the oldest entry first.',
    options: {
      since: { type: 'string', value: 'TIME', help: 'how far back, for instance 1h or 1d; default 1d' },
      limit: { type: 'string', value: 'N', help: 'the most entries of a circuit, default 100' },
    },
    example: 'mcb log stripe --since 1d --table orders',
  },
  watch: {
    keys: 'none',
    summary: 'show the circuits live',
    help: 'Shows the circuits live, with at most one batch of reads a second. Without a terminal it prints a line for each change. Keys: up and down choose a circuit, o opens it, c closes it, r resets it (each asks for a reason), q ends.',
    options: {},
    example: 'mcb watch --function checkout',
  },
  open: {
    keys: 'some',
    summary: 'force circuits open: every call is refused',
    help: 'Forces circuits open for the whole fleet, whatever the service does. This ends when the time is over or you reset them.',
    options: { ...untilOptions, ...reasonOptions },
    example: 'mcb open stripe --for 10m --why "maintenance of stripe" --table orders',
  },
  close: {
    keys: 'some',
    summary: 'force circuits closed: every call passes',
    help: 'Forces circuits closed for the whole fleet, whatever the service does. This ends when the time is over or you reset them.',
    options: { ...untilOptions, ...reasonOptions },
    example: 'mcb close stripe --for 10m --why "their status page is wrong" --table orders',
  },
  reset: {
    keys: 'some',
    summary: 'close circuits and end overrides',
    help: 'Closes circuits, ends the overrides of operators, clears the counts, and repairs damaged records. After that the circuits open and close by themselves again.',
    options: reasonOptions,
    example: 'mcb reset stripe --why "maintenance is over" --table orders',
  },
  doctor: {
    keys: 'none',
    summary: 'check store, permissions, clock and settings',
    help: 'Checks that the store can be read and written, its keys, its time to live and its clock. Checks the settings: with --function, those of the deployed function. --function A,B also compares the settings of several functions. Changes nothing.',
    options: {},
    example: 'mcb doctor --function checkout,refunds',
  },
  serve: {
    keys: 'none',
    summary: 'show the circuits on a web page on this machine',
    help: 'Serves a page on 127.0.0.1 that shows all circuits live, with their last 24 hours. With --allow-writes the page can also change circuits.',
    options: {
      port: { type: 'string', short: 'p', value: 'N', help: 'the port; default: a free one' },
      'allow-writes': { type: 'boolean', help: 'allow the page to force and reset circuits' },
    },
    example: 'mcb serve --table orders',
  },
}

const names = Object.keys(commands) as readonly CommandName[]

/**
 * Reads the arguments of the program.
 *
 * @returns the request, or the help to print
 * @throws {UsageError} naming the mistake and the allowed values
 */
export function readArguments(args: readonly string[]): Request | { readonly help: string } {
  const [name, ...rest] = args
  if (name === undefined || name === '--help' || name === '-h' || name === 'help') {
    const topic = name === 'help' ? rest[0] : undefined
    return { help: topic === undefined ? overview() : helpOf(commandNamed(topic)) }
  }
  const command = commandNamed(name)
  const { values, positionals } = parse(command, rest)
  if (values['help'] === true) return { help: helpOf(command) }
  checkKeys(command, positionals)
  return { command, keys: positionals, values }
}

function commandNamed(name: string): CommandName {
  if (Object.hasOwn(commands, name)) return name as CommandName
  const near = nearest(name, names)
  const advice = near === undefined ? `There are ${names.join(', ')}.` : `Did you mean ${near}?`
  throw new UsageError(`There is no command ${JSON.stringify(name)}. ${advice}`)
}

function optionsOf(command: CommandName): Readonly<Record<string, Option>> {
  return { ...commands[command].options, ...placeOptions }
}

function parse(command: CommandName, args: readonly string[]): { values: Values; positionals: string[] } {
  const options = optionsOf(command)
  const config: ParseArgsOptionsConfig = {}
  for (const [name, { type, short }] of Object.entries(options)) {
    config[name] = short === undefined ? { type } : { type, short }
  }
  try {
    return parseArgs({ args: [...args], options: config, allowPositionals: true, strict: true }) as never
  } catch (error) {
    const { code, message } = error as Error & { code?: string }
    const unknown = /'(-[^' ]+)/.exec(message)?.[1]
    if (code === 'ERR_PARSE_ARGS_UNKNOWN_OPTION' && unknown !== undefined) {
      const near = nearest(unknown.replace(/^-+/, ''), Object.keys(options))
      const advice = near === undefined ? `See mcb ${command} --help.` : `Did you mean --${near}?`
      throw new UsageError(`${command} has no option ${unknown}. ${advice}`)
    }
    throw new UsageError(`${message.split('\n')[0]?.replace(/\.$/, '')}. See mcb ${command} --help.`)
  }
}

function checkKeys(command: CommandName, keys: readonly string[]): void {
  const { keys: wanted, example } = commands[command]
  const isEnough = wanted === 'none' || wanted === 'optional' || keys.length > 0
  const isNotTooMuch = wanted === 'some' || keys.length <= (wanted === 'none' ? 0 : 1)
  if (isEnough && isNotTooMuch) return
  const takes = {
    none: 'no circuit',
    optional: 'at most one circuit',
    one: 'one circuit',
    some: 'at least one circuit',
  }
  throw new UsageError(`${command} takes ${takes[wanted]}, but got ${keys.length}. For example: ${example}`)
}

/** The text of an option; `undefined`: the option is not given. */
export function textOption(values: Values, name: string): string | undefined {
  const value = values[name]
  if (value === undefined || typeof value === 'boolean') return undefined
  if (value.trim() === '') throw new UsageError(`--${name} must not be empty.`)
  return value
}

/** The duration of an option, in milliseconds. */
export function durationOption(values: Values, name: string): number | undefined {
  const text = textOption(values, name)
  if (text === undefined) return undefined
  const parsed = parseDuration(text)
  if (parsed === undefined)
    throw new UsageError(`--${name} must be a duration such as 90s, 10m, 2h or 1d, but is ${JSON.stringify(text)}.`)
  return parsed
}

/** The whole number of an option, within its bounds. */
export function numberOption(values: Values, name: string, least: number, most: number): number | undefined {
  const text = textOption(values, name)
  if (text === undefined) return undefined
  const parsed = /^\d+$/.test(text) ? Number(text) : Number.NaN
  if (parsed >= least && parsed <= most) return parsed
  throw new UsageError(`--${name} must be a whole number from ${least} to ${most}, but is ${JSON.stringify(text)}.`)
}

// ------------------------------------------------------------------------------------------------------------ help

function overview(): string {
  return [
    'Shows circuits and operates them.',
    '',
    'mcb COMMAND [KEY …] [OPTIONS]',
    '',
    ...table(names.map((name) => [`  ${name}`, commands[name].summary])),
    '',
    'KEY is a service key, or a stored key as ls prints it.',
    '',
    'Where the circuits are:',
    ...optionLines(placeOptions),
    '',
    'Exit codes: 0 success; 1 the command failed; 2 wrong arguments; 3 a shown circuit refuses calls.',
    'Help for a command: mcb COMMAND --help',
  ].join('\n')
}

function helpOf(name: CommandName): string {
  const { keys, help, options, example } = commands[name]
  const key = { none: '', optional: ' [KEY]', one: ' KEY', some: ' KEY …' }[keys]
  const own = Object.keys(options).length === 0 ? [] : ['', 'Options:', ...optionLines(options)]
  return [
    ...wrap(help),
    '',
    `mcb ${name}${key} [OPTIONS]`,
    ...own,
    '',
    'Where the circuits are:',
    ...optionLines(placeOptions),
    '',
    `For example: ${example}`,
  ].join('\n')
}

function optionLines(options: Readonly<Record<string, Option>>): string[] {
  return table(
    Object.entries(options).map(([name, { short, value, help }]) => [
      `  ${short === undefined ? '    ' : `-${short}, `}--${name}${value === undefined ? '' : ` ${value}`}`,
      help,
    ]),
  )
}

function table(rows: readonly (readonly [string, string])[]): string[] {
  const width = Math.max(...rows.map(([left]) => left.length))
  return rows.map(([left, right]) => `${left.padEnd(width)}  ${right}`)
}

function wrap(text: string): string[] {
  return text.match(/.{1,100}(\s|$)/g)?.map((line) => line.trimEnd()) ?? [text]
}
