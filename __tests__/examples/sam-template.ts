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

/**
 * Reads a template, at once: the CDK does not outlive `jest.resetModules`.
 *
 * @returns a function that deploys it with these parameters, the others having their defaults; it throws if one has neither
 */
export function readTemplate(file: string): (parameters?: Parameters) => Deployment {
  const stack = new Stack(new App())
  new CfnInclude(stack, 'Template', { templateFile: file })
  const parameters: CfnParameter[] = []
  const alarms: Record<string, Alarm> = {}
  const functions: Record<string, ServerlessFunction> = {}
  for (const element of stack.node.findAll()) {
    if (element instanceof CfnParameter) parameters.push(element)
    if (element instanceof CfnAlarm) alarms[element.node.id] = stack.resolve(alarmOf(element))
    if (element instanceof CfnFunction) functions[element.node.id] = functionOf(element, stack)
  }
  const declared = parameters.map(({ node, default: fallback, allowedValues }) => ({
    name: node.id,
    fallback: fallback as string | undefined,
    allowedValues,
  }))
  return (given = {}) => {
    const values: Record<string, string> = {}
    for (const { name, fallback, allowedValues } of declared) {
      const value = given[name] ?? fallback
      if (value === undefined) throw new Error(`${file} needs the parameter ${name}`)
      if (allowedValues?.includes(value) === false) throw new Error(`${name} of ${file} cannot be ${value}`)
      values[name] = value
    }
    const deploy = <Resource>(resource: Resource | undefined, logicalId: string): Resource => {
      if (resource === undefined) throw new Error(`${file} has no such resource as ${logicalId}`)
      return JSON.parse(JSON.stringify(resource), (_, value) => values[value?.Ref] ?? value)
    }
    return {
      alarm: (logicalId) => deploy(alarms[logicalId], logicalId),
      function: (logicalId) => deploy(functions[logicalId], logicalId),
    }
  }
}

function alarmOf(alarm: CfnAlarm): object {
  return {
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
    actions: alarm.alarmActions,
  }
}

function functionOf({ handler, timeout, environment }: CfnFunction, stack: Stack): ServerlessFunction {
  return { ...stack.resolve({ handler, timeout }), variables: stack.resolve(environment)?.variables ?? {} }
}
