/**
 * What a part of the benchmarks hands in, and how it is written.
 *
 * @module
 */

export interface Table {
  readonly header: readonly string[]
  readonly rows: readonly (readonly string[])[]
}

/** One line of the table of targets. */
export interface Target {
  readonly what: string
  readonly wanted: string
  readonly measured: string
  readonly isMet: boolean
}

export interface Section {
  readonly title: string
  /** Paragraphs and tables, in order. */
  readonly blocks: readonly (string | Table)[]
  readonly targets?: readonly Target[]
}

/** How much a part may do. */
export interface Effort {
  /** A run that shows that everything works; its figures say nothing. */
  readonly quick: boolean
}

export function sectionText({ title, blocks }: Section): string {
  return [`## ${title}`, ...blocks.map((block) => (typeof block === 'string' ? block : tableText(block)))].join('\n\n')
}

export function tableText({ header, rows }: Table): string {
  const line = (cells: readonly string[]) => `| ${cells.join(' | ')} |`
  const rule = header.map((_, index) => (index === 0 ? '---' : '---:'))
  return [line(header), line(rule), ...rows.map(line)].join('\n')
}

export function times(ratio: number): string {
  return `${ratio.toFixed(ratio < 10 ? 2 : 0)} ×`
}

/** Of nanoseconds. */
export function duration(nanoseconds: number): string {
  const [value, unit] =
    nanoseconds < 1_000
      ? [nanoseconds, 'ns']
      : nanoseconds < 1_000_000
        ? [nanoseconds / 1_000, 'µs']
        : [nanoseconds / 1_000_000, 'ms']
  return `${value.toFixed(unit === 'ns' || value >= 100 ? 0 : value >= 10 ? 1 : 2)} ${unit}`
}

/** Of bytes. */
export function size(bytes: number): string {
  const [value, unit] =
    Math.abs(bytes) < 1_024
      ? [bytes, 'B']
      : Math.abs(bytes) < 1_048_576
        ? [bytes / 1_024, 'KB']
        : [bytes / 1_048_576, 'MB']
  return `${value.toFixed(unit === 'B' || Math.abs(value) >= 100 ? 0 : 1)} ${unit}`
}
