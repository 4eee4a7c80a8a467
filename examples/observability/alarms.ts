/**
 * The alarms and the dashboard of `alarms.yaml`, with the CDK. Why each of them is as it is stands there.
 *
 * @module
 */

import { Stack } from 'aws-cdk-lib'
import { CfnAlarm, CfnDashboard } from 'aws-cdk-lib/aws-cloudwatch'
import { Construct } from 'constructs'

export interface CircuitAlarmsProps {
  /** The service key of the circuit. */
  readonly service: string
  /** A function that uses it. The command in the texts finds the store by it, and the dashboard the log. */
  readonly functionName: string
  /** The ARN of the SNS topic that wakes somebody. */
  readonly topicArn: string
  /** How many minutes the circuit may be open before somebody is woken again, from 2 to 1,440. Default: 15. */
  readonly openMinutes?: number
}

/** Where `telemetry.ts` publishes. */
const namespace = 'Shop'

/**
 * Five alarms on one circuit, and its dashboard.
 *
 * @example
 * new CircuitAlarms(this, 'PaymentAlarms', { service: 'payments', functionName: 'checkout', topicArn: topic.topicArn })
 */
export class CircuitAlarms extends Construct {
  constructor(scope: Construct, id: string, props: CircuitAlarmsProps) {
    super(scope, id)
    const { service, functionName, topicArn, openMinutes = 15 } = props
    const names: string[] = []
    const alarm = (name: string, says: string, rule: Rule, command = `explain ${service}`): void => {
      const alarmName = `${functionName}-${service}-circuit-${name}`
      names.push(alarmName)
      new CfnAlarm(this, name, {
        alarmName,
        alarmDescription: `${says} Run: npx middy-circuit-breaker ${command} --function ${functionName}`,
        namespace,
        dimensions: [{ name: 'service', value: service }],
        comparisonOperator: 'GreaterThanOrEqualToThreshold',
        // A healthy fleet publishes none of these metrics, and neither does one that nobody calls.
        treatMissingData: 'notBreaching',
        alarmActions: [topicArn],
        ...rule,
      })
    }
    alarm('opened', `The circuit of ${service} has opened because the service fails.`, {
      metricName: 'CircuitOpened',
      statistic: 'Sum',
      period: 60,
      evaluationPeriods: 1,
      datapointsToAlarm: 1,
      threshold: 1,
    })
    const minutes = `${openMinutes} minutes`
    alarm('open-for-long', `The circuit of ${service} has been open for ${minutes}: the service does not recover.`, {
      metricName: 'CircuitOpen',
      statistic: 'Maximum',
      period: 60,
      evaluationPeriods: openMinutes,
      datapointsToAlarm: openMinutes,
      threshold: 1,
    })
    alarm('flaps', `The circuit of ${service} has opened 3 times in an hour: it flaps.`, {
      metricName: 'CircuitOpened',
      statistic: 'Sum',
      period: 3_600,
      evaluationPeriods: 1,
      datapointsToAlarm: 1,
      threshold: 3,
    })
    const forced = `The circuit of ${service} has been forced by an operator for more than an hour: it may be forgotten.`
    alarm('forced-for-long', forced, {
      metricName: 'ForcedFor',
      statistic: 'Maximum',
      period: 60,
      evaluationPeriods: 15,
      datapointsToAlarm: 1,
      threshold: 3_600,
    })
    const alone = `The store of the circuit of ${service} cannot be read or written: instances do not learn from each other.`
    const rule: Rule = {
      metricName: 'StorageErrors',
      statistic: 'Sum',
      period: 60,
      evaluationPeriods: 5,
      datapointsToAlarm: 3,
      threshold: 1,
    }
    alarm('store-fails', alone, rule, 'doctor')

    const stack = Stack.of(this)
    const { partition, region, account } = stack
    const alarms = names.map((name) => `arn:${partition}:cloudwatch:${region}:${account}:alarm:${name}`)
    const widgets = [
      { type: 'alarm', x: 0, y: 0, width: 24, height: 2, properties: { title: 'Alarms', alarms } },
      ...widgetsOf({ service, functionName, region }),
    ]
    new CfnDashboard(this, 'Dashboard', {
      dashboardName: `${functionName}-${service}-circuit`,
      dashboardBody: stack.toJsonString({ widgets }),
    })
  }
}

interface Rule {
  readonly metricName: string
  readonly statistic: 'Sum' | 'Maximum'
  /** In seconds. */
  readonly period: number
  readonly evaluationPeriods: number
  readonly datapointsToAlarm: number
  readonly threshold: number
}

interface Place {
  readonly service: string
  readonly functionName: string
  readonly region: string
}

function widgetsOf({ service, functionName, region }: Place): object[] {
  const chart = (title: string, x: number, y: number, width: number, metrics: object[], stacked = false): object => ({
    type: 'metric',
    x,
    y,
    width,
    height: 6,
    properties: { title, region, period: 60, view: 'timeSeries', stacked, metrics },
  })
  const metric = (name: string, stat: string, label?: string): unknown[] => [
    namespace,
    name,
    'service',
    service,
    { stat, ...(label !== undefined && { label }) },
  ]
  const log = (title: string, y: number, query: string): object => ({
    type: 'log',
    x: 0,
    y,
    width: 24,
    height: 6,
    properties: { title, region, view: 'table', query: `SOURCE '/aws/lambda/${functionName}' | ${query}` },
  })
  const outcomes = ['CallsSucceeded', 'CallsFailed', 'CallsTimedOut', 'CallsRefused']
  const latencies = [metric('CallLatency', 'p50'), metric('CallLatency', 'p99')]
  const whom = ['forced_state', 'operator', 'operator_why', 'operator_until'].map((field) => `latest(${field})`)
  const told = 'from, to, reason, failure.name, failure.status, operator, operator_why, operator_until'
  return [
    chart('Open (1) while there are invocations; openings', 0, 2, 24, [
      metric('CircuitOpen', 'Maximum', 'open'),
      metric('CircuitOpened', 'Sum', 'openings'),
    ]),
    chart(
      'Calls',
      0,
      8,
      12,
      outcomes.map((name) => metric(name, 'Sum')),
      true,
    ),
    chart('Latency of calls that reached the service', 12, 8, 12, latencies),
    chart('Forced by an operator, in seconds', 0, 14, 12, [metric('ForcedFor', 'Maximum')]),
    chart('Errors of the store', 12, 14, 12, [metric('StorageErrors', 'Sum')]),
    log(
      'Forced by whom, why, and until when',
      20,
      `filter ispresent(ForcedFor) and service = '${service}' | stats ${whom.join(', ')}, max(ForcedFor)`,
    ),
    log(
      'Transitions',
      26,
      `fields @timestamp, ${told}, function_request_id | filter ispresent(reason) and circuit = '${service}' | ` +
        'sort @timestamp desc | limit 50',
    ),
  ]
}
