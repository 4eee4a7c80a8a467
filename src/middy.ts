/**
 * The types of Middy that the middleware needs. This file repeats them because Middy is an optional peer, and the declarations of
 * this package must compile without it.
 *
 * @module
 */

import type { Callback, Context } from 'aws-lambda'

/** Middy's type for values that a middleware does not touch. */
// biome-ignore lint/suspicious/noExplicitAny: It is Middy's own.
type Untouched = any

/** The part of Middy's request that every major version has. */
export interface Request<TEvent = unknown, TResult = Untouched, TErr = Error, TContext = Context, TInternal = object> {
  /** The event of the invocation. */
  event: TEvent
  /** Lambda's context, with the additions of middlewares. */
  context: TContext
  /** The result of the handler, after it has returned. */
  response: TResult | null | undefined
  /** The error of the handler or of a middleware. */
  error: TErr | null | undefined
  /** The values that middlewares share. */
  internal: TInternal
}

/** One hook of a middleware. */
type Hook<TEvent, TResult, TErr, TContext, TInternal> = (
  request: Request<TEvent, TResult, TErr, TContext, TInternal>,
) => Untouched

/** A middleware. The type of the event, of the context and of `internal` are intersected with those of the handler. */
export interface MiddlewareObj<
  TEvent = unknown,
  TResult = Untouched,
  TErr = Error,
  TContext = Context,
  // biome-ignore lint/complexity/noBannedTypes: As in Middy: intersected with another type it is that type.
  TInternal = {},
> {
  /** Runs before the handler. */
  before: Hook<TEvent, TResult, TErr, TContext, TInternal>
  /** Runs after the handler, if it has not failed. */
  after: Hook<TEvent, TResult, TErr, TContext, TInternal>
  /** Runs when the handler or a middleware has failed. */
  onError: Hook<TEvent, TResult, TErr, TContext, TInternal>
}

/** The part of the context that Lambda or a test must pass. The middleware adds the rest. A context without circuits stays as it is. */
type Given<TContext> = TContext extends { readonly callExternal: unknown; readonly circuits: unknown }
  ? Context
  : TContext

/**
 * Middy's types require that the caller of a handler passes the complete context, with the additions of the middlewares. With
 * these signatures a handler with circuits takes Lambda's own context, so that it is a `Handler` of `@types/aws-lambda`.
 *
 * From `const handler: SomeHandler = middy()…` the compiler infers `void | Result` for the result, because Lambda's type of a
 * handler also allows `void`. The second signature leaves `void` out; no code calls it.
 *
 * The parameters have neither constraints nor defaults: those differ between the majors of Middy.
 */
// biome-ignore lint/suspicious/noTsIgnore: Without Middy there is nothing to extend, and with it nothing to expect.
/** @ts-ignore */
declare module '@middy/core' {
  interface MiddyfiedHandler<TEvent, TResult, TErr, TContext, TInternal> {
    (event: TEvent, context: Given<TContext>): Promise<TResult>
    (event: TEvent, context: Given<TContext>, callback: Callback<Untouched>): Promise<Exclude<TResult, void>>
  }
}
