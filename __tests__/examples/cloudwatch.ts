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
  readonly statistic: 'Sum'
  /** In seconds. */
  readonly period: number
  readonly evaluationPeriods: number
  readonly datapointsToAlarm: number
  readonly comparisonOperator: 'GreaterThanOrEqualToThreshold'
  readonly threshold: number
  readonly treatMissingData: 'notBreaching'
  /** Who is told when it rings. */
  readonly actions: readonly string[]
}

/**
 * How often the alarm rings until `end`: each time that its state becomes ALARM, once at the end of every period.
 *
 * @param end milliseconds since the epoch
 */
export function ringsOf(alarm: Alarm, points: readonly DataPoint[], end: number): number {
  const { statistic, comparisonOperator, treatMissingData, threshold } = alarm
  const rule = `${statistic} ${comparisonOperator} ${treatMissingData}`
  if (rule !== 'Sum GreaterThanOrEqualToThreshold notBreaching') throw new Error(`Cannot evaluate ${rule}`)

  const period = alarm.period * 1_000
  const sums = new Map<number, number>()
  for (const { at, values } of watchedBy(alarm, points)) {
    const start = Math.floor(at / period)
    sums.set(
      start,
      values.reduce((sum, value) => sum + value, sums.get(start) ?? 0),
    )
  }
  const isBreaching = (start: number): boolean => (sums.get(start) ?? 0) >= threshold
  let rings = 0
  let wasRinging = false
  for (let last = Math.min(...sums.keys()); last * period <= end; last++) {
    const window = Array.from({ length: alarm.evaluationPeriods }, (_, back) => last - back)
    const isRinging = window.filter(isBreaching).length >= alarm.datapointsToAlarm
    if (isRinging && !wasRinging) rings++
    wasRinging = isRinging
  }
  return rings
}

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
