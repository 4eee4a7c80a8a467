/**
 * CloudFormation templates: reads them, finds what is wrong with them, and says what their values will be. Nothing of it
 * needs a network.
 *
 * @module
 */

import { mkdtempSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { App, BootstraplessSynthesizer, CloudFormationValidatePlugin, type IStackSynthesizer, Stack } from 'aws-cdk-lib'
import { CfnInclude } from 'aws-cdk-lib/cloudformation-include'
import { samProblems } from './sam-properties.ts'

export interface Resource {
  readonly Type: string
  readonly Properties?: Readonly<Record<string, unknown>>
  readonly Metadata?: Readonly<Record<string, unknown>>
}

export interface Template {
  readonly Parameters?: Readonly<Record<string, Readonly<Record<string, unknown>>>>
  readonly Resources: Readonly<Record<string, Resource>>
  readonly Outputs?: Readonly<Record<string, unknown>>
}

/** Reads YAML with CloudFormation's tags, as the CDK does: intrinsic functions get their long names. */
export function readTemplate(file: string): Template {
  const app = new App({ builtinCloudFormationValidation: false })
  // One that adds nothing to the template. The CDK's own types do not agree under exactOptionalPropertyTypes.
  const synthesizer = new BootstraplessSynthesizer() as IStackSynthesizer
  const stack = new Stack(app, 'Stack', { synthesizer })
  new CfnInclude(stack, 'Template', { templateFile: file })
  return app.synth().getStackByName(stack.stackName).template
}

/**
 * Finds problems with templates: with AWS's own validator, which the CDK brings along (`cloudformation-validate`, the
 * rules of cfn-lint and the schemas of all resources), warnings included. It leaves SAM's own resources alone, but for the
 * references in them. These are compared with the CDK's database; and the validator is shown what SAM makes of them.
 *
 * @param templates all at once, because making the validator takes a second
 * @returns for each template one sentence for each problem
 */
export function problemsOf<Name extends string>(
  templates: Readonly<Record<Name, Template>>,
): Readonly<Record<Name, readonly string[]>> {
  const problems = Object.fromEntries(
    Object.entries<Template>(templates).map(([name, template]) => [name, samProblems(template)]),
  )
  const folder = mkdtempSync(join(tmpdir(), 'templates-'))
  try {
    const files = new Map<string, string>()
    const write = (name: string, template: Template) => {
      const file = join(folder, `${files.size}.json`)
      writeFileSync(file, JSON.stringify(template))
      files.set(file, name)
    }
    for (const [name, template] of Object.entries<Template>(templates)) {
      write(name, template)
      if (Object.values(template.Resources).some(isSam)) write(name, transformed(template))
    }
    const stackTemplates = [...files].map(([templatePath, stackConstructPath]) => {
      return { templatePath, stackConstructPath, accountId: undefined, region: undefined }
    })
    const context = { appConstruct: new App(), templatePaths: [...files.keys()], stackTemplates }
    for (const { ruleName, description, violatingResources } of new CloudFormationValidatePlugin().validate(context)
      .violations) {
      for (const { resourceLogicalId, templatePath = '' } of violatingResources) {
        problems[files.get(templatePath) ?? '']?.push(`${resourceLogicalId}: ${description} (${ruleName})`)
      }
    }
  } finally {
    rmSync(folder, { recursive: true })
  }
  return problems as Record<Name, string[]>
}

const isSam = ({ Type }: Resource): boolean => Type.startsWith('AWS::Serverless::')

/** What SAM makes of its functions and HTTP APIs, as far as there is something to check in it. */
function transformed({ Resources, ...rest }: Template): Template {
  const resources = Object.entries(Resources).flatMap(([id, resource]): [string, Resource][] => {
    const { Type, Properties: properties = {} } = resource
    if (Type === 'AWS::Serverless::HttpApi') {
      return [[id, { Type: 'AWS::ApiGatewayV2::Api', Properties: { Name: id, ProtocolType: 'HTTP' } }]]
    }
    if (Type !== 'AWS::Serverless::Function') return isSam(resource) ? [] : [[id, resource]]
    const own = Object.entries(properties).filter(([name]) => ofLambda.includes(name))
    const code = { Code: { ZipFile: '-' }, Role: { 'Fn::GetAtt': [`${id}Role`, 'Arn'] } }
    // A text names a managed policy.
    const policies = [properties['Policies'] ?? []].flat().filter((policy) => typeof policy !== 'string')
    const role = {
      AssumeRolePolicyDocument: {
        Version: '2012-10-17',
        Statement: [{ Effect: 'Allow', Action: 'sts:AssumeRole', Principal: { Service: 'lambda.amazonaws.com' } }],
      },
      Policies: policies.map((PolicyDocument, n) => ({ PolicyName: `${id}${n}`, PolicyDocument })),
    }
    return [
      [id, { Type: 'AWS::Lambda::Function', Properties: { ...Object.fromEntries(own), ...code } }],
      [`${id}Role`, { Type: 'AWS::IAM::Role', Properties: role }],
    ]
  })
  return { ...rest, Resources: Object.fromEntries(resources) }
}

/** The properties of a function that SAM hands on as they are. */
const ofLambda = [
  'Architectures',
  'Environment',
  'EphemeralStorage',
  'Handler',
  'Layers',
  'MemorySize',
  'Runtime',
  'Timeout',
]

/**
 * What `Ref`, `Fn::Sub`, `Fn::Join` and references to secrets will be.
 *
 * @param values of parameters and pseudo parameters, by name
 * @param secrets of Secrets Manager, by name
 * @throws where a value is not given
 */
export function resolve(
  value: unknown,
  values: Readonly<Record<string, string>>,
  secrets: Readonly<Record<string, string>> = {},
): unknown {
  const find = (name: string, from = values): string => {
    const found = from[name]
    if (found === undefined) throw new Error(`There is no value for ${name}.`)
    return found
  }
  const withSecrets = (text: string): string =>
    text.replace(/{{resolve:secretsmanager:([^:}]+):SecretString[^}]*}}/g, (_, name: string) => find(name, secrets))
  const visit = (node: unknown): unknown => {
    if (typeof node === 'string') return withSecrets(node)
    if (typeof node !== 'object' || node === null) return node
    if (Array.isArray(node)) return node.map(visit)
    const { Ref: ref, 'Fn::Sub': sub, 'Fn::Join': join } = node as Record<string, unknown>
    if (typeof ref === 'string') return find(ref)
    if (typeof sub === 'string') return withSecrets(sub.replace(/\${([^}]+)}/g, (_, name: string) => find(name)))
    if (Array.isArray(join)) return (join[1] as unknown[]).map(visit).join(String(join[0]))
    return Object.fromEntries(Object.entries(node).map(([name, each]) => [name, visit(each)]))
  }
  return visit(value)
}
