/**
 * What CloudFormation would make of the templates of the examples, as far as their tests look at it.
 *
 * @module
 */

import { readTemplate, resolve } from './cloudformation-template.ts'
import type { Alarm } from './cloudwatch.ts'

/** What is deployed, by logical id; it throws where there is no such thing. */
export interface Deployment {
  alarm(logicalId: string): Alarm
  function(logicalId: string): ServerlessFunction
}

/** An `AWS::Serverless::Function`. */
export interface ServerlessFunction {
  readonly handler: string
  /** In seconds. */
  readonly timeout: number
  readonly variables: Readonly<Record<string, string>>
}

type Parameters = Readonly<Record<string, string>>
type Properties = Readonly<Record<string, unknown>>

/**
 * Reads a template, at once: the CDK does not outlive `jest.resetModules`.
 *
 * @returns a function that deploys it with these parameters, the others having their defaults; it throws if one has neither
 */
export function deployable(file: string): (parameters?: Parameters) => Deployment {
  const { Parameters: declared = {}, Resources } = readTemplate(file)
  return (given = {}) => {
    const values: Record<string, string> = {}
    for (const [name, { Default, AllowedValues }] of Object.entries(declared)) {
      const value = given[name] ?? (Default as string | undefined)
      if (value === undefined) throw new Error(`${file} needs the parameter ${name}`)
      const isAllowed = (AllowedValues as readonly string[] | undefined)?.includes(value) ?? true
      if (!isAllowed) throw new Error(`${name} of ${file} cannot be ${value}`)
      values[name] = value
    }
    const propertiesOf = (logicalId: string, type: string): Properties => {
      const resource = Resources[logicalId]
      if (resource?.Type !== type) throw new Error(`${file} has no ${type} with the name ${logicalId}`)
      return resource.Properties ?? {}
    }
    return {
      alarm: (logicalId) => alarmOf(resolve(propertiesOf(logicalId, 'AWS::CloudWatch::Alarm'), values) as Properties),
      function: (logicalId) => {
        const { Handler, Timeout, Environment } = propertiesOf(logicalId, 'AWS::Serverless::Function')
        return resolve(
          { handler: Handler, timeout: Timeout, variables: variablesIn(Environment) },
          values,
        ) as ServerlessFunction
      },
    }
  }
}

function alarmOf(alarm: Properties): Alarm {
  const dimensions = (alarm['Dimensions'] ?? []) as readonly { readonly Name: string; readonly Value: string }[]
  return {
    namespace: alarm['Namespace'],
    metricName: alarm['MetricName'],
    dimensions: dimensions.map(({ Name, Value }) => ({ name: Name, value: Value })),
    statistic: alarm['Statistic'],
    period: alarm['Period'],
    // The value of a parameter is a text.
    evaluationPeriods: Number(alarm['EvaluationPeriods']),
    datapointsToAlarm: Number(alarm['DatapointsToAlarm'] ?? alarm['EvaluationPeriods']),
    comparisonOperator: alarm['ComparisonOperator'],
    threshold: alarm['Threshold'],
    treatMissingData: alarm['TreatMissingData'],
    description: alarm['AlarmDescription'],
    actions: alarm['AlarmActions'],
  } as Alarm
}

function variablesIn(environment: unknown): unknown {
  return (environment as { readonly Variables?: unknown } | undefined)?.Variables ?? {}
}
