/**
 * Classifies the end of a call: by the classifier, or by the default if the classifier gives no valid answer.
 *
 * A classifier is the user's code. It may be asynchronous by mistake, throw on an unexpected error, or return any value. None of
 * these mistakes reaches the caller or switches the circuit off.
 *
 * @module
 */

import { read } from '../failures/causes.ts'
import {
  describeFailure,
  isBreakableError,
  isBreakableResult,
  type Outcome,
  outcomeOfError,
  outcomeOfResult,
  outcomes,
} from '../failures/classification.ts'
import { warnOfClassifier } from '../warnings.ts'

type Classifier<V> = (value: V) => boolean | Outcome
type Setting = 'isBreakableError' | 'isBreakableResult'

/** The outcome of a call that returned. */
export function judgeResult<T>(service: string, classify: Classifier<T>, result: T): Outcome {
  return classify === isBreakableResult
    ? outcomeOfResult(result)
    : judge(service, 'isBreakableResult', classify, result, outcomeOfResult, 'success')
}

/** The outcome of a call that threw. */
export function judgeError(service: string, classify: Classifier<unknown>, error: unknown): Outcome {
  return classify === isBreakableError
    ? outcomeOfError(error)
    : judge(service, 'isBreakableError', classify, error, outcomeOfError, 'ignore')
}

/** @param excused the outcome if the classifier answers `false` but the default would count a failure */
function judge<V>(
  service: string,
  setting: Setting,
  classify: Classifier<V>,
  value: V,
  byDefault: (value: V) => Outcome,
  excused: Outcome,
): Outcome {
  let said: unknown
  try {
    said = classify(value)
  } catch (error) {
    warnOfClassifier(service, setting, 'threw', describeFailure(error).name)
    return byDefault(value)
  }
  if (typeof read(said, 'then') === 'function') {
    warnOfClassifier(service, setting, 'promise')
    Promise.resolve(said).catch(noop)
    return byDefault(value)
  }
  if (!said) {
    const outcome = byDefault(value)
    return outcome === 'failure' ? excused : outcome
  }
  if (outcomes.includes(said as Outcome)) return said as Outcome
  if (typeof said === 'string') warnOfClassifier(service, setting, 'string')
  return 'failure'
}

function noop(): void {}
