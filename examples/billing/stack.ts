/**
 * What `template.yaml` deploys, with the CDK. `npx cdk deploy --app 'node stack.ts' -c tableName=app`
 *
 * @module
 */

import { join } from 'node:path'
import { App, CfnOutput, Duration, SecretValue, Stack, type StackProps } from 'aws-cdk-lib'
import { HttpApi, HttpMethod } from 'aws-cdk-lib/aws-apigatewayv2'
import { HttpIamAuthorizer } from 'aws-cdk-lib/aws-apigatewayv2-authorizers'
import { HttpLambdaIntegration } from 'aws-cdk-lib/aws-apigatewayv2-integrations'
import { Table } from 'aws-cdk-lib/aws-dynamodb'
import { PolicyStatement } from 'aws-cdk-lib/aws-iam'
import { Architecture, Runtime } from 'aws-cdk-lib/aws-lambda'
import { NodejsFunction, OutputFormat } from 'aws-cdk-lib/aws-lambda-nodejs'
import type { Construct } from 'constructs'

export interface BillingStackProps extends StackProps {
  /** A table in this account and region with a partition key `PK` and a sort key `SK`, both strings. */
  readonly tableName: string
  /** A secret of Secrets Manager whose text is Stripe's secret key. Default: `billing/stripe`. */
  readonly stripeKeyName?: string
  /** The id of its version. CloudFormation reads a rotated key only when something of the function changes. */
  readonly stripeKeyVersion?: string
  /** Start with `observe` where you want to see first what it would refuse. Default: `enforce`. */
  readonly circuitBreakerMode?: 'enforce' | 'observe' | 'off'
}

export class BillingStack extends Stack {
  constructor(scope: Construct, id: string, props: BillingStackProps) {
    super(scope, id, props)
    const { tableName, stripeKeyName = 'billing/stripe', stripeKeyVersion, circuitBreakerMode = 'enforce' } = props
    // From the command line it may be anything, with which the function would not start.
    const modes = ['enforce', 'observe', 'off']
    if (!modes.includes(circuitBreakerMode)) throw new Error(`circuitBreakerMode must be one of ${modes.join(', ')}.`)
    const version = stripeKeyVersion === undefined ? {} : { versionId: stripeKeyVersion }

    const table = Table.fromTableName(this, 'Table', tableName)
    const payments = new NodejsFunction(this, 'Payments', {
      entry: join(import.meta.dirname, 'handler.ts'),
      runtime: Runtime.NODEJS_24_X,
      architecture: Architecture.ARM_64,
      memorySize: 512,
      // Longer than the `timeout` in handler.ts and `deadlineReserve` together.
      timeout: Duration.seconds(15),
      bundling: {
        format: OutputFormat.ESM,
        target: 'node24',
        externalModules: ['@aws-sdk/*', 'ioredis'],
      },
      environment: {
        CIRCUIT_BREAKER_TABLE_NAME: table.tableName,
        CIRCUIT_BREAKER_MODE: circuitBreakerMode,
        // A reference that CloudFormation resolves, so nothing is unwrapped here: the key is in no template.
        STRIPE_SECRET_KEY: SecretValue.secretsManager(stripeKeyName, version).unsafeUnwrap(),
      },
    })
    // Not `table.grantReadWriteData(payments)`, which would open the whole table to this function.
    payments.addToRolePolicy(
      new PolicyStatement({
        sid: 'CircuitBreaker',
        actions: ['dynamodb:GetItem', 'dynamodb:BatchGetItem', 'dynamodb:UpdateItem'],
        resources: [table.tableArn],
        conditions: { 'ForAllValues:StringLike': { 'dynamodb:LeadingKeys': ['CIRCUIT#*'] } },
      }),
    )

    const api = new HttpApi(this, 'PaymentsApi', { defaultAuthorizer: new HttpIamAuthorizer() })
    api.addRoutes({
      path: '/payments',
      methods: [HttpMethod.POST],
      integration: new HttpLambdaIntegration('Payment', payments),
    })
    new CfnOutput(this, 'PaymentsUrl', { value: `${api.apiEndpoint}/payments` })
  }
}

if (import.meta.main) {
  const app = new App()
  const { node } = app
  new BillingStack(app, 'Billing', {
    tableName: node.getContext('tableName'),
    stripeKeyName: node.tryGetContext('stripeKeyName'),
    stripeKeyVersion: node.tryGetContext('stripeKeyVersion'),
    circuitBreakerMode: node.tryGetContext('circuitBreakerMode'),
  })
}
