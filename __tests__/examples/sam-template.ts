/**
 * Reads the templates of the examples with the CDK, which refuses what has no meaning: a reference to nothing, a number for a
 * list.
 *
 * @module
 */

import { App, CfnParameter, Stack } from 'aws-cdk-lib'
import { CfnAlarm } from 'aws-cdk-lib/aws-cloudwatch'
import { CfnFunction } from 'aws-cdk-lib/aws-sam'
import { CfnInclude } from 'aws-cdk-lib/cloudformation-include'
import type { Alarm } from './cloudwatch.ts'

export interface Template {
  alarm(logicalId: string): Alarm
  /** An `AWS::Serverless::Function`. */
  function(logicalId: string): ServerlessFunction
}

export interface ServerlessFunction {
  readonly handler: string
  /** In seconds. */
  readonly timeout: number
  readonly variables: Readonly<Record<string, string>>
}

/**
 * Reads a template as it is deployed with these parameters; the others have their defaults.
 *
 * @throws if a parameter has neither
 */
export function readTemplate(file: string, parameters: Readonly<Record<string, string>> = {}): Template {
  const stack = new Stack(new App())
  const included = new CfnInclude(stack, 'Template', { templateFile: file, parameters: valuesFor(file, parameters) })
  const resource = <Kind>(logicalId: string, kind: abstract new (...args: never[]) => Kind): Kind => {
    const found = included.getResource(logicalId)
    if (!(found instanceof kind)) throw new Error(`${logicalId} of ${file} is no ${kind.name}`)
    return found
  }
  return {
    alarm: (logicalId) => {
      const alarm = resource(logicalId, CfnAlarm)
      return stack.resolve({
        namespace: alarm.namespace,
        metricName: alarm.metricName,
        dimensions: alarm.dimensions,
        statistic: alarm.statistic,
        period: alarm.period,
        evaluationPeriods: alarm.evaluationPeriods,
        datapointsToAlarm: alarm.datapointsToAlarm ?? alarm.evaluationPeriods,
        comparisonOperator: alarm.comparisonOperator,
        threshold: alarm.threshold,
        treatMissingData: alarm.treatMissingData,
      })
    },
    function: (logicalId) => {
      const { handler, timeout, environment } = resource(logicalId, CfnFunction)
      return stack.resolve({ handler, timeout, variables: stack.resolve(environment)?.variables ?? {} })
    },
  }
}

/** The parameters with their defaults. */
function valuesFor(file: string, given: Readonly<Record<string, string>>): Record<string, string> {
  const stack = new Stack(new App())
  new CfnInclude(stack, 'Template', { templateFile: file })
  const values: Record<string, string> = { ...given }
  for (const parameter of stack.node.findAll()) {
    if (!(parameter instanceof CfnParameter)) continue
    const name = parameter.node.id
    const value = given[name] ?? parameter.default
    const isAllowed = parameter.allowedValues?.includes(value) ?? value !== undefined
    if (!isAllowed) throw new Error(`The parameter ${name} of ${file} cannot be ${value}`)
    values[name] = value
  }
  return values
}
