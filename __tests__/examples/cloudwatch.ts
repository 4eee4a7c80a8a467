/**
 * A stand-in for CloudWatch: makes data points of what a function prints in the embedded metric format, and evaluates alarms
 * over them.
 *
 * @module
 */

import { MetricUnit } from '@aws-lambda-powertools/metrics'

export interface DataPoint {
  readonly namespace: string
  readonly name: string
  readonly unit: string
  /** Milliseconds since the epoch. */
  readonly at: number
  readonly dimensions: Readonly<Record<string, string>>
  readonly values: readonly number[]
}

/**
 * The data points of one line, one for each metric and dimension set.
 *
 * @throws if CloudWatch would drop any of it:
 *   https://docs.aws.amazon.com/AmazonCloudWatch/latest/monitoring/CloudWatch_Embedded_Metric_Format_Specification.html
 */
export function dataPointsOf(line: Readonly<Record<string, unknown>>): DataPoint[] {
  const insist = (isTrue: boolean, what: string): void => {
    if (!isTrue) throw new Error(`Not in the embedded metric format: ${what} in ${JSON.stringify(line)}`)
  }
  const { Timestamp: at, CloudWatchMetrics: directives } = Object(line['_aws'])
  insist(Number.isSafeInteger(at) && Math.abs(at - Date.now()) < 7_200_000, '_aws.Timestamp')
  insist(isList(directives, 1, Number.POSITIVE_INFINITY), '_aws.CloudWatchMetrics')
  const points: DataPoint[] = []
  for (const { Namespace: namespace, Dimensions: sets, Metrics: metrics } of directives) {
    insist(isText(namespace, 1_024), 'Namespace')
    insist(isList(sets, 1, Number.POSITIVE_INFINITY), 'Dimensions')
    insist(isList(metrics, 1, 100), 'Metrics')
    for (const { Name: name, Unit: unit, ...rest } of metrics) {
      insist(isText(name, 1_024), 'Name')
      insist(Object.values<string>(MetricUnit).includes(unit), `the unit of ${name}`)
      insist(
        Object.keys(rest).every((key) => key === 'StorageResolution'),
        `the definition of ${name}`,
      )
      const values = [line[name]].flat()
      insist(isList(values, 1, 100) && values.every(Number.isFinite), `the value of ${name}`)
      for (const set of sets) {
        insist(isList(set, 0, 30), 'a dimension set')
        for (const dimension of set) insist(isText(dimension, 250) && isText(line[dimension], 1_024), String(dimension))
        const dimensions = Object.fromEntries(set.map((dimension: string) => [dimension, line[dimension]]))
        points.push({ namespace, name, unit, at, dimensions, values: values as number[] })
      }
    }
  }
  return points
}

function isList(value: unknown, min: number, max: number): boolean {
  return Array.isArray(value) && value.length >= min && value.length <= max
}

function isText(value: unknown, longest: number): boolean {
  return typeof value === 'string' && value.trim() !== '' && value.length <= longest
}

/** The properties of an `AWS::CloudWatch::Alarm`, as they are in a template. */
export interface Alarm {
  readonly namespace: string
  readonly metricName: string
  readonly dimensions: readonly { readonly name: string; readonly value: string }[]
  readonly statistic: 'Sum' | 'Maximum'
  /** In seconds. */
  readonly period: number
  readonly evaluationPeriods: number
  readonly datapointsToAlarm: number
  readonly comparisonOperator: 'GreaterThanOrEqualToThreshold'
  readonly threshold: number
  readonly treatMissingData: 'notBreaching'
  readonly description: string
  /** Who is told when it rings. */
  readonly actions: readonly string[]
}

/**
 * How often the alarm rings until `end`: each time that its state becomes ALARM. It is evaluated once a minute, over a window
 * that slides: https://docs.aws.amazon.com/AmazonCloudWatch/latest/monitoring/alarm-evaluation-window.html
 *
 * @param end milliseconds since the epoch
 */
export function ringsOf(alarm: Alarm, points: readonly DataPoint[], end: number): number {
  return ringingMinutes(alarm, points, end).filter((minute, n, all) => minute !== (all[n - 1] ?? 0) + 1).length
}

/** Whether the alarm is in ALARM with the minute of `end`. */
export function isRinging(alarm: Alarm, points: readonly DataPoint[], end: number): boolean {
  return ringingMinutes(alarm, points, end).at(-1) === Math.floor(end / 60_000) + 1
}

/** The ends of the minutes after which the alarm is in ALARM, in minutes since the epoch. */
function ringingMinutes(alarm: Alarm, points: readonly DataPoint[], end: number): number[] {
  const { statistic, comparisonOperator, treatMissingData, threshold } = alarm
  const rule = `${comparisonOperator} ${treatMissingData}`
  if (rule !== 'GreaterThanOrEqualToThreshold notBreaching') throw new Error(`Cannot evaluate ${rule}`)
  const total = { Sum: (all: number[]) => all.reduce((sum, each) => sum + each, 0), Maximum: largest }[statistic]
  if (total === undefined) throw new Error(`Cannot evaluate ${statistic}`)

  const watched = watchedBy(alarm, points).map(({ at, values }) => ({ minute: Math.floor(at / 60_000), values }))
  const period = alarm.period / 60
  const isBreaching = (to: number): boolean => {
    const inside = watched.filter(({ minute }) => minute >= to - period && minute < to).flatMap(({ values }) => values)
    return inside.length > 0 && total(inside) >= threshold
  }
  const ringing: number[] = []
  for (let to = Math.min(...watched.map(({ minute }) => minute)); to <= end / 60_000 + 1; to++) {
    const windows = Array.from({ length: alarm.evaluationPeriods }, (_, back) => to - back * period)
    if (windows.filter(isBreaching).length >= alarm.datapointsToAlarm) ringing.push(to)
  }
  return ringing
}

const largest = (all: number[]): number => Math.max(...all)

/** The data points of the alarm's metric: of exactly its dimensions, as CloudWatch has it. */
function watchedBy(alarm: Alarm, points: readonly DataPoint[]): DataPoint[] {
  const dimensions = JSON.stringify(alarm.dimensions.map(({ name, value }) => [name, value]).sort())
  return points.filter(
    (point) =>
      point.namespace === alarm.namespace &&
      point.name === alarm.metricName &&
      JSON.stringify(Object.entries(point.dimensions).sort()) === dimensions,
  )
}
