/**
 * The terminal that a command writes to: painted where that is wanted, and safe from what a store holds.
 *
 * @module
 */

import { styleText } from 'node:util'
import type { Environment } from '../settings/problems.ts'

/** A stream to write to, for instance `process.stdout`. */
export interface Output {
  readonly isTTY?: boolean | undefined
  readonly columns?: number | undefined
  readonly rows?: number | undefined
  write(text: string): unknown
}

/** The parts of the world that a command touches. */
export interface Console {
  readonly stdout: Output
  readonly stderr: Output
  readonly stdin: NodeJS.ReadStream
  readonly env: Environment
  /** Milliseconds since the epoch. */
  readonly now: () => number
  /** Aborted when the user ends the command with Ctrl+C. */
  readonly signal: AbortSignal
}

/** Paints text, or leaves it as it is. */
export type Paint = (style: Parameters<typeof styleText>[0], text: string) => string

/** Colours only on a terminal, and not where `NO_COLOR` is set (https://no-color.org). */
export function paintFor(output: Output, env: Environment): Paint {
  const isPainted = output.isTTY === true && !env['NO_COLOR'] && env['TERM'] !== 'dumb'
  return isPainted ? (style, text) => styleText(style, text, { validateStream: false }) : (_style, text) => text
}

/** The longest text of a store that is shown, in characters. */
const longest = 300

/**
 * Makes a text that came from a store harmless: without control characters, escape sequences, and characters that change
 * the direction of others or cannot be seen. Each becomes `�`.
 */
export function safe(text: unknown): string {
  const clean = String(text).replace(/[\p{Cc}\p{Cf}\p{Cs}\p{Co}\p{Cn}\p{Zl}\p{Zp}]/gu, '\u{FFFD}')
  return clean.length > longest ? `${clean.slice(0, longest)}…` : clean
}

/** JSON in which everything that a terminal could take for a command is escaped. With an indent of 0 it takes one line. */
export function safeJson(value: unknown, indent: number = 2): string {
  const escaped = (character: string): string =>
    Array.from(
      { length: character.length },
      (_, i) => `\\u${character.charCodeAt(i).toString(16).padStart(4, '0')}`,
    ).join('')
  return JSON.stringify(value, undefined, indent).replace(/(?!\n)[\p{Cc}\p{Cf}\p{Cs}\p{Zl}\p{Zp}]/gu, escaped)
}

/** Lines in columns, two blanks apart. The last column is as long as it is. */
export function columns(
  rows: readonly (readonly string[])[],
  paintCell: (cell: string, row: number, column: number) => string = (cell) => cell,
): string[] {
  const widths: number[] = []
  for (const row of rows) {
    for (const [i, cell] of row.entries()) widths[i] = Math.max(widths[i] ?? 0, widthOf(cell))
  }
  return rows.map((row, r) =>
    row
      .map(
        (cell, c) =>
          paintCell(cell, r, c) + (c === row.length - 1 ? '' : ' '.repeat((widths[c] ?? 0) - widthOf(cell) + 2)),
      )
      .join('')
      .trimEnd(),
  )
}

function widthOf(text: string): number {
  return Array.from(text).length
}
