/**
 * The options of the DynamoDB storage, and what they may be.
 *
 * @module
 */

// biome-ignore lint/suspicious/noTsIgnore: An optional peer. Without it these are `any`, also for a compiler that checks declarations.
/** @ts-ignore */
import type { DynamoDBClient, DynamoDBClientConfig } from '@aws-sdk/client-dynamodb'
import type { OptionRule, OptionRules } from '../../settings/option-rules.ts'
import { isObject, isText, textAllowed } from '../../settings/problems.ts'
import { recordFields } from '../record.ts'

/** The table, and the names of its keys. */
interface TableOptions {
  /** The table's name or ARN. */
  readonly tableName: string
  /** The attribute that is the partition key, of type string. Its value is `CIRCUIT#{serviceKey}`. Default: `PK`. */
  readonly partitionKeyName?: string | undefined
  /** The attribute that is the sort key, of type string; `null` for a table without one. Default: `SK`. */
  readonly sortKeyName?: string | null | undefined
  /** The value of the sort key of every circuit. Default: `STATE`. */
  readonly sortKeyValue?: string | undefined
  /** The attribute that the table's time to live is set to, in epoch seconds. Default: `ttl`. */
  readonly ttlAttributeName?: string | undefined
  /**
   * Whether reads are strongly consistent, so that they see every write that was acknowledged before, as the storage
   * contract wants it. `false` halves their price: then an instance can learn of an open circuit some time later, and
   * claim a probe late. Writes are conditional, so that no write is decided on an old record. Default: `true`.
   */
  readonly consistentRead?: boolean | undefined
}

/** Makes the client at the first operation, of its class and of the configuration with the defaults. */
export type MakeClient = (Client: typeof DynamoDBClient, config: DynamoDBClientConfig) => DynamoDBClient

/** A client, or how to make one. */
export type ClientOptions =
  | {
      /** The client to use. `DynamoDBCircuitStorage.close` does not close it. */
      readonly client?: DynamoDBClient | undefined
      readonly clientConfig?: never
    }
  | {
      /** Makes the client, for instance with tracing around it. */
      readonly client?: MakeClient | undefined
      /**
       * For the client that is made at the first operation. It wins over the defaults: two attempts, but one where the
       * table is throttled. The HTTP handler has `connectionTimeout` 1 000 ms, `requestTimeout` 2 000 ms and
       * `throwOnRequestTimeout`.
       */
      readonly clientConfig?: DynamoDBClientConfig | undefined
    }

/** The options of a `DynamoDBCircuitStorage`. */
export type DynamoDBCircuitStorageOptions = TableOptions & ClientOptions

/** The options of the table with the defaults filled in. */
export type Table = { readonly [Name in keyof TableOptions]-?: Exclude<TableOptions[Name], undefined> }

/** Checked options with the defaults filled in. */
export function withDefaults({
  partitionKeyName = 'PK',
  sortKeyName = 'SK',
  sortKeyValue = 'STATE',
  ttlAttributeName = 'ttl',
  consistentRead = true,
  ...others
}: DynamoDBCircuitStorageOptions): Table & ClientOptions {
  return { ...others, partitionKeyName, sortKeyName, sortKeyValue, ttlAttributeName, consistentRead }
}

const attribute: OptionRule = {
  allowed: 'the name of an attribute, at most 255 bytes, that no field of a circuit record has',
  // `inc0` and so on hold the ids of additions.
  accepts: (name) =>
    isText(name) &&
    Buffer.byteLength(name) <= 255 &&
    !/^inc\d+$/.test(name) &&
    !(recordFields as readonly string[]).includes(name),
}

export const dynamoDBOptionRules: OptionRules = {
  of: 'the DynamoDB storage',
  allowed: 'an object with at least tableName',
  options: {
    tableName: {
      allowed: 'the name of a table (3 to 255 letters, digits, "_", "-", ".") or its ARN',
      accepts: (value) => typeof value === 'string' && /^([\w.-]{3,255}|arn:[\w.:/-]{1,1020})$/.test(value),
    },
    partitionKeyName: attribute,
    sortKeyName: {
      allowed: `${attribute.allowed}, or null`,
      accepts: (value) => value === null || attribute.accepts(value),
    },
    sortKeyValue: {
      allowed: `${textAllowed}, at most 1024 bytes`,
      accepts: (value) => isText(value) && Buffer.byteLength(value) <= 1024,
    },
    ttlAttributeName: attribute,
    consistentRead: { allowed: 'true or false', accepts: (value) => typeof value === 'boolean' },
    client: {
      allowed: 'a DynamoDBClient of @aws-sdk/client-dynamodb, or a function that makes one',
      // Its class is no such function.
      accepts: (value) =>
        typeof value === 'function' ? !value.prototype?.send : isObject(value) && typeof value.send === 'function',
    },
    clientConfig: { allowed: 'the configuration of a DynamoDBClient', accepts: isObject },
  },
  check: (options, refuse) => {
    const { client, clientConfig } = options
    if (options['tableName'] === undefined) refuse('tableName', 'is missing; give it')
    if (isObject(client) && clientConfig !== undefined) {
      refuse('client', 'and clientConfig exclude each other: a client is used as it is')
    }
    const { partitionKeyName, sortKeyName, ttlAttributeName } = withDefaults(
      options as unknown as DynamoDBCircuitStorageOptions,
    )
    if (new Set([partitionKeyName, sortKeyName, ttlAttributeName]).size < 3) {
      refuse('partitionKeyName', 'must differ from sortKeyName and ttlAttributeName, and these differ from each other')
    }
  },
}
