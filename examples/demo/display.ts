/**
 * The run as it happens: redrawn in place on a terminal, otherwise a plain line per second.
 *
 * @module
 */

import { stripVTControlCharacters, styleText } from 'node:util'
import type { CircuitState } from '../../src/index.ts'
import { type Call, type Fleet, percentile, type Transition } from './recording.ts'
import { durationOf, type Phase, phaseAt } from './scenario.ts'

/** Paints text, or leaves it as it is. */
export type Paint = (style: Parameters<typeof styleText>[0], text: string) => string

export const plain: Paint = (_style, text) => text
export const coloured: Paint = (style, text) => styleText(style, text, { validateStream: false })

/** What a display shows. */
export interface Progress {
  /** Milliseconds since the start. */
  readonly now: number
  readonly phases: readonly Phase[]
  readonly fleetSize: number
  readonly calls: readonly Call[]
}

/** Where the run is shown. */
export interface Display {
  /** Prints lines that stay. */
  print(...lines: readonly string[]): void
  /** Shows how far the run is. */
  update(progress: Progress): void
  /** Leaves the terminal as it was found. */
  close(): void
  readonly paint: Paint
  /** How often it wants to be updated, in milliseconds. */
  readonly interval: number
}

interface Terminal {
  readonly isTTY?: boolean
  readonly columns?: number
  readonly rows?: number
  write(text: string): unknown
}

/** The display that suits the terminal: in place where that works, in colour where that is wanted. */
export function displayOn(terminal: Terminal, env: Readonly<Record<string, string | undefined>>): Display {
  const isTerminal = terminal.isTTY === true && env['TERM'] !== 'dumb'
  const paint = isTerminal && !env['NO_COLOR'] ? coloured : plain
  return isTerminal && !env['CI'] ? inPlace(terminal, paint) : lineByLine(terminal, paint)
}

function lineByLine(terminal: Terminal, paint: Paint): Display {
  let hasLegend = false
  return {
    paint,
    interval: 1_000,
    print: (...lines) => void terminal.write(`${lines.join('\n')}\n`),
    update: (progress) => {
      if (!hasLegend) terminal.write(`${legend}\n`)
      hasLegend = true
      terminal.write(`${line(progress, paint)}\n`)
    },
    close: () => {},
  }
}

function inPlace(terminal: Terminal, paint: Paint): Display {
  const [hideCursor, showCursor] = ['\x1b[?25l', '\x1b[?25h']
  let drawn: readonly string[] = []
  const erase = (): string => (drawn.length === 0 ? '' : `\r\x1b[${drawn.length}A\x1b[J`)
  const draw = (frame: readonly string[]): string => {
    // A line that wraps, or a frame that scrolls, could not be erased.
    const { columns = 80, rows = 24 } = terminal
    drawn = frame.slice(0, rows - 1).map((text) => cut(text, columns - 1))
    return drawn.map((text) => `${text}\n`).join('')
  }
  let latest: readonly string[] = []
  return {
    paint,
    interval: 100,
    print: (...lines) => {
      const erased = erase()
      terminal.write(`${erased}${lines.map((text) => `${text}\n`).join('')}${draw(latest)}`)
    },
    update: (progress) => {
      latest = frameOf(progress, paint)
      const erased = erase()
      terminal.write(`${hideCursor}${erased}${draw(latest)}`)
    },
    close: () => {
      latest = []
      terminal.write(`${erase()}${showCursor}`)
      drawn = []
    },
  }
}

/** A line with the state of things and what happened in the last second, for logs. */
export function line({ now, phases, fleetSize, calls }: Progress, paint: Paint): string {
  const parts = fleets.map((fleet) => {
    const recent = calls.filter((call) => call.fleet === fleet && call.endedAt > now - 1_000)
    const of = (outcome: Call['outcome']): string =>
      String(recent.filter((call) => call.outcome === outcome).length).padStart(3)
    const open = statesOf(calls, fleet, fleetSize).filter((state) => state !== 'CLOSED').length
    const states = fleet === 'none' ? '' : ` ${paint(open > 0 ? 'red' : 'green', `${String(open).padStart(2)} open`)},`
    return `${titles[fleet]}:${states}${of('failed')} failed${fleet === 'none' ? '' : `,${of('refused')} refused`}`
  })
  return `${clock(now)}  ${phaseName(phaseAt(phases, now), paint)}  ${parts.join(' | ')}`
}

/** What {@link line} abbreviates. */
export const legend = 'Per second: circuits that are not closed, calls that failed, calls that a circuit refused'

/** The whole picture: the service, and three lines per fleet. */
export function frameOf({ now, phases, fleetSize, calls }: Progress, paint: Paint): string[] {
  const total = durationOf(phases)
  const width = 24
  const done = Math.min(width, Math.round((width * now) / total))
  const bar = `${'━'.repeat(done)}${paint('gray', '─'.repeat(width - done))}`
  const lines = [
    '',
    `  the service  ${phaseName(phaseAt(phases, now), paint)}  ${bar} ${clock(now)} of ${total / 1_000} s`,
    '',
    `  ${''.padEnd(labelWidth)}${cellsOf('calls', 'served', 'failed', 'refused', 'p50')}`,
  ]
  for (const fleet of fleets) {
    const own = calls.filter((call) => call.fleet === fleet)
    const of = (outcome: Call['outcome']): number => own.filter((call) => call.outcome === outcome).length
    const recent = own.filter(({ endedAt }) => endedAt > now - 1_000)
    const cells = cellsOf(own.length, of('served'), of('failed'), of('refused'), latencyOf(recent))
    const states = statesOf(calls, fleet, fleetSize).map((state) => paint(colours[state], initials[state]))
    lines.push(
      `  ${paint('bold', longTitles[fleet].padEnd(labelWidth))}${cells}`,
      `    ${fleet === 'none' ? paint('gray', 'every call goes out') : states.join('')}`,
    )
  }
  lines.push('', `  ${paint('gray', 'Each letter is the circuit of an instance: C closed, O open, H half-open.')}`)
  return lines
}

/** Narrow enough for a terminal of 80 columns. */
const labelWidth = 36
const cellWidths = [7, 8, 8, 9, 9]

function cellsOf(...values: readonly (string | number)[]): string {
  return values.map((value, index) => String(value).padStart(cellWidths[index] ?? 0)).join('')
}

/** The line of a transition of the shared circuit. */
export function eventLine({ at, from, to, generation, number, reason }: Transition, paint: Paint): string {
  const change = `${from.padStart(9)} → ${paint(colours[to], to.padEnd(9))}`
  return `${clock(at)}  shared circuit ${change}  by instance ${number}, ${reason} (generation ${generation})`
}

/** In the order in which they are shown. */
export const fleets: readonly Fleet[] = ['none', 'alone', 'shared']

const titles: Record<Fleet, string> = { none: 'no breaker', alone: 'one each', shared: 'shared' }
const initials = { CLOSED: 'C', OPEN: 'O', HALF_OPEN: 'H' } as const
const longTitles: Record<Fleet, string> = {
  none: 'no breaker',
  alone: 'a breaker in each instance (memory)',
  shared: 'the shared circuit (DynamoDB)',
}
const colours = { CLOSED: 'green', OPEN: 'red', HALF_OPEN: 'yellow' } as const

function phaseName({ name, failure }: Phase, paint: Paint): string {
  return paint(failure === undefined ? 'green' : 'red', name.padEnd(18))
}

function statesOf(calls: readonly Call[], fleet: Fleet, fleetSize: number): CircuitState[] {
  return Array.from({ length: fleetSize }, (_, index) => {
    const last = calls.findLast((call) => call.fleet === fleet && call.number === index + 1)
    return last?.state ?? 'CLOSED'
  })
}

function latencyOf(calls: readonly Call[]): string {
  return calls.length === 0 ? '–' : milliseconds(percentile(calls.map(({ latency }) => latency)))
}

/** For people: `0.42 ms`, `16 ms`. */
export function milliseconds(value: number): string {
  return Number.isNaN(value) ? '–' : `${value < 10 ? value.toFixed(1) : Math.round(value)} ms`
}

/** Seconds since the start, for people. */
export function clock(time: number): string {
  return `${(time / 1_000).toFixed(1).padStart(5)} s`
}

/** Cuts a line that may hold colours to a number of columns. */
function cut(text: string, columns: number): string {
  const bare = stripVTControlCharacters(text)
  return bare.length <= columns ? text : bare.slice(0, columns)
}
