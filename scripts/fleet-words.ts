/**
 * The words and sums of `docs/evidence/fleet.md`.
 *
 * @module
 */

export function table(head: readonly string[], rows: readonly (readonly string[])[]): string {
  const line = (cells: readonly string[]) => `| ${cells.join(' | ')} |`
  return [line(head), line(head.map(() => '---')), ...rows.map(line)].join('\n')
}

export function count(value: number): string {
  return String(Math.round(value)).replaceAll(/\B(?=(\d{3})+$)/g, ' ')
}

export function plural(value: number, noun: string): string {
  return `${count(value)} ${noun}${value === 1 ? '' : 's'}`
}

/** With two significant digits, more where the number has more before the point. */
export function significant(value: number): string {
  return value >= 100 ? count(Number(value.toPrecision(3))) : String(Number(value.toPrecision(2)))
}

export function duration(ms: number | undefined): string {
  if (ms === undefined) return 'never'
  if (ms === 0) return '0'
  if (ms < 1_000) return `${significant(ms)} ms`
  const seconds = ms / 1_000
  if (seconds < 7_200) return `${significant(seconds)} s`
  return seconds < 100 * day ? `${significant(seconds / 3_600)} h` : `${significant(seconds / day)} days`
}

export function percent(rate: number): string {
  return `${Number((rate * 100).toPrecision(3))} %`
}

const day = 86_400

export function perDay(trips: number, ms: number): number {
  return (trips * day * 1_000) / ms
}

export function rateText(value: number): string {
  return value < 0.001 ? '< 0.001' : significant(value)
}

export function range(length: number): number[] {
  return Array.from({ length }, (_, index) => index + 1)
}

export function median(values: readonly number[]): number {
  const sorted = values.toSorted((one, other) => one - other)
  return sorted[Math.floor(sorted.length / 2)] as number
}
