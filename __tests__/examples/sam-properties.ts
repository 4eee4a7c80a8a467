/**
 * What a SAM template says of SAM's own resources (`AWS::Serverless::…`), compared with the CDK's database of
 * resources: unknown resource types, events and properties, wrong types, missing required properties.
 *
 * @module
 */

import { loadAwsServiceSpecSync } from '@aws-cdk/aws-service-spec'
import type { Template } from './cloudformation-template.ts'

type Database = ReturnType<typeof loadAwsServiceSpecSync>
type Properties = ReturnType<typeof findResource>['properties']
type Type = Properties[string]['type']

/** What SAM has, but the database has not: https://docs.aws.amazon.com/serverless-application-model/latest/developerguide/sam-property-httpapi-httpapiauth.html */
const newer: Readonly<Record<string, Properties>> = {
  HttpApiAuth: { EnableIamAuthorizer: { type: { type: 'boolean' } } },
}

let loaded: Database | undefined

/** One sentence for each problem, with the path to it. */
export function samProblems({ Resources }: Template): string[] {
  loaded ??= loadAwsServiceSpecSync()
  const database = loaded
  return Object.entries(Resources).flatMap(([id, { Type: type, Properties: properties = {} }]) => {
    if (!type.startsWith('AWS::Serverless::')) return []
    const path = `Resources.${id}`
    if (database.lookup('resource', 'cloudFormationType', 'equals', type).length === 0) {
      return [`${path}: there is no resource type ${type}`]
    }
    return propertiesProblems(database, properties, findResource(database, type).properties, `${path}.Properties`)
  })
}

function findResource(database: Database, type: string) {
  return database.lookup('resource', 'cloudFormationType', 'equals', type).only()
}

function propertiesProblems(database: Database, value: unknown, known: Properties, path: string): string[] {
  if (!isObject(value)) return [`${path} must be an object`]
  const missing = Object.keys(known).filter((name) => known[name]?.required && !(name in value))
  return [
    ...missing.map((name) => `${path}: ${name} is required`),
    ...Object.entries(value).flatMap(([name, each]) => {
      const property = known[name]
      if (property === undefined) return [`${path}: there is no property ${name}`]
      return typeProblems(database, each, property.type, `${path}.${name}`)
    }),
  ]
}

function typeProblems(database: Database, value: unknown, type: Type, path: string): string[] {
  // What it will be is known only when it is deployed.
  if (isIntrinsic(value)) return []
  switch (type.type) {
    case 'json':
      return []
    case 'string':
    case 'boolean':
      return typeof value === type.type ? [] : [`${path} must be a ${type.type}`]
    case 'number':
    case 'integer':
      return typeof value === 'number' ? [] : [`${path} must be a number`]
    case 'array':
      if (!Array.isArray(value)) return [`${path} must be a list`]
      return value.flatMap((each, n) => typeProblems(database, each, type.element, `${path}[${n}]`))
    case 'map':
      if (!isObject(value)) return [`${path} must be an object`]
      return Object.entries(value).flatMap(([name, each]) =>
        typeProblems(database, each, type.element, `${path}.${name}`),
      )
    case 'union': {
      const each = type.types.map((one) => typeProblems(database, value, one, path))
      // Else those with the type that was most likely meant: of a list no more is said than what is wrong in it.
      const inside = each.filter(([first = '']) => !first.startsWith(`${path} must be`))
      return (inside.length > 0 ? inside : each).reduce((fewest, one) => (one.length < fewest.length ? one : fewest))
    }
    case 'ref': {
      const { name, properties } = database.get('typeDefinition', type.reference)
      if (name === 'EventSource') return eventProblems(database, value, properties, path)
      return propertiesProblems(database, value, { ...properties, ...newer[name] }, path)
    }
    default:
      throw new Error(`${path} is of the type ${type.type}, which this cannot check.`)
  }
}

/** The properties of an event depend on its `Type`: those of `HttpApi` are called `HttpApiEvent`. */
function eventProblems(database: Database, value: unknown, known: Properties, path: string): string[] {
  const all = known['Properties']?.type
  if (all?.type !== 'union') throw new Error('The properties of events are none of several.')
  const own = isObject(value) ? `${value['Type']}Event` : ''
  const type = all.types.find((one) => one.type === 'ref' && database.get('typeDefinition', one.reference).name === own)
  if (type === undefined) return [`${path}.Type names no event`]
  return propertiesProblems(database, value, { ...known, Properties: { required: true, type } }, path)
}

/** `{ Ref: … }`, `{ 'Fn::Sub': … }` */
function isIntrinsic(value: unknown): boolean {
  if (!isObject(value)) return false
  const [name = '', ...others] = Object.keys(value)
  return others.length === 0 && (name === 'Ref' || name.startsWith('Fn::'))
}

function isObject(value: unknown): value is Readonly<Record<string, unknown>> {
  return typeof value === 'object' && value !== null && !Array.isArray(value)
}
