/**
 * Durations and instants, as an operator writes and reads them.
 *
 * @module
 */

const units: Readonly<Record<string, number>> = { s: 1_000, m: 60_000, h: 3_600_000, d: 86_400_000 }

/** `90s`, `10m`, `1h30m` or `2d`, in milliseconds; `undefined`: it is no duration. */
export function parseDuration(text: string): number | undefined {
  const matched = /^(\d+(\.\d+)?[smhd])+$/.test(text) ? text.matchAll(/(\d+(?:\.\d+)?)([smhd])/g) : []
  let sum = 0
  for (const [, count, unit] of matched) sum += Number(count) * (units[unit as string] as number)
  return sum > 0 && Number.isFinite(sum) ? Math.round(sum) : undefined
}

/** A duration in its two largest units: `3 min 20 s`. */
export function duration(milliseconds: number): string {
  const seconds = Math.max(0, Math.round(milliseconds / 1_000))
  if (seconds < 60) return `${seconds} s`
  const minutes = Math.floor(seconds / 60)
  if (minutes < 60) return joined(minutes, 'min', seconds % 60, 's')
  const hours = Math.floor(minutes / 60)
  return hours < 24 ? joined(hours, 'h', minutes % 60, 'min') : joined(Math.floor(hours / 24), 'd', hours % 24, 'h')
}

function joined(large: number, unit: string, small: number, smallUnit: string): string {
  return small === 0 ? `${large} ${unit}` : `${large} ${unit} ${small} ${smallUnit}`
}

/** The largest instant that a `Date` can hold, in milliseconds since the epoch. */
const latest = 8.64e15

/** An instant in UTC, with its date where that is not today's: `14:02:11 UTC`. */
export function instant(at: number, now: number): string {
  if (Math.abs(at) > latest) return 'at an impossible time'
  const text = new Date(at).toISOString()
  const time = `${text.slice(text.indexOf('T') + 1, -5)} UTC`
  const today = new Date(now).toISOString()
  return text.slice(0, text.indexOf('T')) === today.slice(0, today.indexOf('T'))
    ? time
    : `${text.slice(0, text.indexOf('T'))} ${time}`
}

/** `3 min 20 s ago`, `in 7 s` or `now`. */
export function relative(at: number, now: number): string {
  const ahead = at - now
  if (Math.abs(ahead) < 500) return 'now'
  return ahead > 0 ? `in ${duration(ahead)}` : `${duration(-ahead)} ago`
}
