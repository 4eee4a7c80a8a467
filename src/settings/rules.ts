/**
 * The rules of settings: the accepted values, and how to read a variable's text.
 *
 * @module
 */

import { longestTimer } from '../runtime.ts'
import { wordIn } from './problems.ts'

/** One setting. */
export interface Setting {
  readonly default: unknown
  /** The accepted values in words. Messages put "must be" before it. */
  readonly allowed: string
  readonly accepts: (value: unknown) => boolean
  /** The value that a variable's text stands for. Case does not matter. Absent: the setting has no variable. */
  readonly fromText?: (text: string) => unknown
  /** For a time: a number of milliseconds from 1 to this was probably meant in seconds. */
  readonly seconds?: number
}

export function whole(
  fallback: number | false,
  min: number,
  max: number = Number.MAX_SAFE_INTEGER,
  unit = '',
): Setting {
  const range = `from ${min} ${max === Number.MAX_SAFE_INTEGER ? 'up' : `to ${max}`}`
  const orFalse = fallback === false
  return {
    default: fallback,
    allowed: `a whole number ${unit}${range}${orFalse ? ', or false' : ''}`,
    accepts: (value) =>
      (orFalse && value === false) || (Number.isSafeInteger(value) && Number(value) >= min && Number(value) <= max),
    fromText: (text) => (/^\d+$/.test(text) ? Number(text) : orFalse && wordIn(['false'], text) ? false : text),
  }
}

export function milliseconds(
  fallback: number | false,
  min: number,
  seconds: number,
  max: number = longestTimer,
): Setting {
  return { ...whole(fallback, min, max, 'of milliseconds '), seconds }
}

export function factor(fallback: number, min: number, max: number): Setting {
  return {
    default: fallback,
    allowed: `a number from ${min} to ${max}`,
    accepts: (value) => typeof value === 'number' && value >= min && value <= max,
    fromText: (text) => (/^\d+(\.\d+)?$/.test(text) ? Number(text) : text),
  }
}

export function flag(fallback: boolean): Setting {
  return {
    default: fallback,
    allowed: 'true or false',
    accepts: (value) => typeof value === 'boolean',
    fromText: (text) => (wordIn(['true'], text) ? true : wordIn(['false'], text) ? false : text),
  }
}

export function oneOf(...values: readonly string[]): Setting {
  return {
    default: values[0],
    allowed: `one of ${values.join(', ')}`,
    accepts: (value) => values.some((known) => known === value),
    fromText: (text) => wordIn(values, text) ?? text,
  }
}

export function callback(fallback?: (value: unknown) => boolean): Setting {
  return { default: fallback, allowed: 'a function', accepts: (value) => typeof value === 'function' }
}
