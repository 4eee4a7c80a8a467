/**
 * Circuits in a DynamoDB table.
 *
 * @module
 */

import { refuseWrongOptions } from '../../settings/option-rules.ts'
import { type DynamoDBCircuitStorageOptions, dynamoDBOptionRules, withDefaults } from './options.ts'
import { UncheckedDynamoDBStorage } from './storage.ts'

export type { DynamoDBCircuitStorageOptions } from './options.ts'

/**
 * Keeps circuits in a DynamoDB table, one item per circuit.
 *
 * It needs `@aws-sdk/client-dynamodb` and `@aws-sdk/util-dynamodb`, which are loaded at the first operation, and the
 * permissions `dynamodb:GetItem`, `BatchGetItem` and `UpdateItem` on the table (`DeleteItem` and `BatchWriteItem` for
 * `clearState` and `batchClearState`). Making one does no I/O.
 *
 * Every method rejects with a {@link CircuitStorageError} whose `cause` is the SDK's error.
 *
 * @throws {ConfigurationError} naming every wrong option
 * @example
 * ```ts
 * const storage = new DynamoDBCircuitStorage({ tableName: 'app', partitionKeyName: 'pk', sortKeyName: 'sk' })
 * ```
 */
export class DynamoDBCircuitStorage extends UncheckedDynamoDBStorage {
  /** @throws {ConfigurationError} naming every wrong option */
  constructor(options: DynamoDBCircuitStorageOptions) {
    refuseWrongOptions(dynamoDBOptionRules, options)
    super(withDefaults(options))
  }
}
