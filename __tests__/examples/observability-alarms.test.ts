/**
 * Whether `examples/observability/alarms.yaml` and `alarms.ts` are right and deploy the same. What they make of a function's
 * metrics is in `observability.test.ts`.
 *
 * @module
 */

import { channel } from 'node:diagnostics_channel'
import { readFileSync } from 'node:fs'
import { join } from 'node:path'
import { beforeAll, describe, expect, it } from '@jest/globals'
import { App, BootstraplessSynthesizer, type IStackSynthesizer, Stack } from 'aws-cdk-lib'
import { CircuitBreaker, type CircuitChannels } from 'middy-circuit-breaker'
import { logCircuits, measureCircuits } from 'middy-circuit-breaker/powertools'
import { CircuitAlarms } from '../../examples/observability/alarms.ts'
import { logger, metrics } from '../../examples/observability/telemetry.ts'
import { codeBlocks } from '../package/code-blocks.ts'
import { waitFor } from '../support/time.ts'
import { problemsOf, readTemplate, resolve, type Template } from './cloudformation-template.ts'
import { dataPointsOf } from './cloudwatch.ts'
import { capturePrinted, type Printed } from './printed-lines.ts'

const topicArn = 'arn:aws:sns:eu-west-1:123456789012:on-call'
const region = 'eu-west-1'
const places = { 'AWS::Partition': 'aws', 'AWS::Region': region, 'AWS::AccountId': '123456789012' }
const file = join(import.meta.dirname, '..', '..', 'examples', 'observability', 'alarms.yaml')

let sam: Template
let cdk: Template

beforeAll(() => {
  sam = readTemplate(file)
  cdk = synthesize(20)
})

function synthesize(openMinutes?: number): Template {
  const app = new App({ builtinCloudFormationValidation: false })
  const stack = new Stack(app, 'Stack', { synthesizer: new BootstraplessSynthesizer() as IStackSynthesizer })
  const minutes = openMinutes === undefined ? {} : { openMinutes }
  new CircuitAlarms(stack, 'Alarms', { service: 'refunds', functionName: 'checkout', topicArn, ...minutes })
  return app.synth().getStackByName(stack.stackName).template
}

/** The properties of all that is deployed, by its name. */
function deployed({ Resources }: Template, openMinutes: string): Record<string, Record<string, unknown>> {
  const parameters = { Service: 'refunds', FunctionName: 'checkout', AlarmTopic: topicArn, OpenMinutes: openMinutes }
  const all = Object.values(Resources).map(({ Properties }): [string, Record<string, unknown>] => {
    const properties = resolve(Properties, { ...parameters, ...places }) as Record<string, unknown>
    const { AlarmName, DashboardName, DashboardBody, EvaluationPeriods, DatapointsToAlarm } = properties
    if (DashboardBody !== undefined) return [String(DashboardName), JSON.parse(String(DashboardBody))]
    // The value of a parameter is a text.
    const numbers = { EvaluationPeriods: Number(EvaluationPeriods), DatapointsToAlarm: Number(DatapointsToAlarm) }
    return [String(AlarmName), { ...properties, ...numbers }]
  })
  return Object.fromEntries(all)
}

describe('the alarms and the dashboard', () => {
  it('are what CloudFormation takes', () => {
    expect(problemsOf({ sam, cdk })).toEqual({ sam: [], cdk: [] })
  })

  it('are the same with SAM and with the CDK, and so is their default', () => {
    const minutes = String(sam.Parameters?.['OpenMinutes']?.['Default'])
    expect(deployed(cdk, '-')).toEqual(deployed(sam, '20'))
    expect(deployed(synthesize(), '-')).toEqual(deployed(sam, minutes))
    expect(Object.keys(deployed(sam, minutes)).sort()).toEqual([
      'checkout-refunds-circuit',
      'checkout-refunds-circuit-flaps',
      'checkout-refunds-circuit-forced-for-long',
      'checkout-refunds-circuit-open-for-long',
      'checkout-refunds-circuit-opened',
      'checkout-refunds-circuit-store-fails',
    ])
  })

  it('say in a sentence what happened, and which command is next', () => {
    for (const { AlarmName: name, AlarmDescription: text } of Object.values(deployed(sam, '15'))) {
      if (name === undefined) continue
      const command = name === 'checkout-refunds-circuit-store-fails' ? 'doctor' : 'explain refunds'
      expect(text).toMatch(/^The [\w\s:,]+\. Run: /)
      expect(text).toMatch(new RegExp(`Run: npx middy-circuit-breaker ${command} --function checkout$`))
    }
  })

  it('show each alarm in the dashboard, by its ARN', () => {
    const arns = Object.keys(deployed(sam, '15'))
      .filter((name) => name !== 'checkout-refunds-circuit')
      .map((name) => `arn:aws:cloudwatch:${region}:123456789012:alarm:${name}`)
    expect(
      widgets()
        .flatMap(({ properties: { alarms = [] } }) => alarms)
        .toSorted(),
    ).toEqual(arns.toSorted())
  })
})

describe('the alarm in the documentation', () => {
  it('is the one of the template', () => {
    const [block, ...others] = codeBlocks('docs/operate/alarms.md').filter(({ language }) => language === 'yaml')
    expect(others).toEqual([])
    expect(readFileSync(file, 'utf8')).toContain(block?.code.trimEnd().replace(/^/gm, '  '))
  })
})

describe('what they look at', () => {
  it('is published by measureCircuits, in as many metrics as the documentation counts', async () => {
    using printed = capturePrinted()
    const breaker = new CircuitBreaker({ services: ['refunds'], storage: 'memory', failureThreshold: 1 })
    const publishOn = <Name extends keyof CircuitChannels>(name: Name, event: CircuitChannels[Name]) =>
      channel(name).publish(event)
    breaker.onStateChange((change) => {
      // A probe that begins.
      if (change.to === 'OPEN') {
        const probed = { from: 'OPEN', to: 'HALF_OPEN', reason: 'probe-started' } as const
        publishOn('middy-circuit-breaker:state', { ...change, ...probed })
      }
    })
    const call = breaker.callExternalFor({})
    const fallback = () => 0
    const telemetry = measureCircuits(metrics, { breaker })
    const logs = logCircuits(logger)
    const endInvocation = telemetry.publish

    await call('refunds', () => 1)
    endInvocation()
    const healthy = seriesOf(printed)
    const reset = Object.assign(new Error('down'), { code: 'ECONNRESET' })
    await call('refunds', () => Promise.reject(reset), { fallback })
    await waitFor('the circuit is open', () => breaker.circuits.refunds.state === 'OPEN')
    await call('refunds', () => 1, { fallback })
    endInvocation()
    await breaker.reset('refunds')
    await call('refunds', () => new Promise(() => {}), { fallback, timeout: 1 })
    await breaker.forceOpen('refunds', { by: 'on call', why: 'maintenance', until: Date.now() + 3_600_000 })
    endInvocation()
    for (const kind of ['unavailable', 'throttled', 'misconfigured', 'corrupt'] as const) {
      const event = { services: ['refunds'], operation: 'batchGetState', duration: 1, error: kind } as const
      publishOn('middy-circuit-breaker:store', event)
    }
    logs.stop()
    telemetry.stop()

    expect(healthy).toEqual(['CallLatency service=refunds', 'CallsSucceeded service=refunds'])
    const series = seriesOf(printed)
    // With InvalidRequests, which handler.ts publishes, docs/operate/alarms.md counts 20.
    expect(series).toHaveLength(19)
    const charted = widgets().flatMap(({ properties: { metrics = [] } }) => metrics)
    for (const [namespace, name, dimension, value] of charted) {
      expect([namespace, dimension, value]).toEqual(['Shop', 'service', 'refunds'])
      expect(series).toContain(`${name} service=refunds`)
    }
    const alarmed = Object.values(deployed(sam, '15')).flatMap(({ MetricName: name }) =>
      name ? [`${name} service=refunds`] : [],
    )
    expect(series).toEqual(expect.arrayContaining(alarmed))
    const queried = widgets().flatMap(({ properties: { query = [] } }) => query)
    expect(queried).toHaveLength(2)
    for (const query of queried) {
      const line = printed.lines.findLast(
        (each) => (query.includes('ForcedFor') ? 'ForcedFor' : 'operator_why') in each,
      )
      expect(Object.keys(line ?? {})).toEqual(expect.arrayContaining(query.match(/\boperator\w*/g) ?? ['none']))
    }
  })
})

interface Widget {
  readonly properties: {
    readonly alarms?: readonly string[]
    readonly metrics?: readonly (readonly string[])[]
    readonly query?: string
  }
}

function widgets(): readonly Widget[] {
  const { 'checkout-refunds-circuit': dashboard } = deployed(sam, '15')
  return Object(dashboard)['widgets']
}

/** The metrics that were published, each with its dimensions. */
function seriesOf({ lines }: Printed): string[] {
  const points = lines.filter((line) => '_aws' in line).flatMap(dataPointsOf)
  return [
    ...new Set(
      points.map(({ name, dimensions }) =>
        [name, ...Object.entries(dimensions).map((pair) => pair.join('='))].join(' '),
      ),
    ),
  ].sort()
}
