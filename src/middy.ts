/**
 * Middy's types, as far as the middleware needs them. They are written out here, because Middy is an optional peer, and the
 * declarations of this package must hold without it, too.
 *
 * @module
 */

import type { Callback, Context } from 'aws-lambda'

/** The type that Middy gives to what a middleware does not touch. */
// biome-ignore lint/suspicious/noExplicitAny: It is Middy's own.
type Untouched = any

/** The part of Middy's request that every major version has. */
export interface Request<TEvent = unknown, TResult = Untouched, TErr = Error, TContext = Context, TInternal = object> {
  /** What Lambda has been invoked with. */
  event: TEvent
  /** Lambda's context, with what middlewares have added. */
  context: TContext
  /** The result of the handler, once there is one. */
  response: TResult | null | undefined
  /** The error of the handler or of a middleware. */
  error: TErr | null | undefined
  /** What middlewares keep for one another. */
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

/** What Lambda, or a test, has to give: the middleware adds the rest. The context of a handler without circuits stays as it is. */
type Given<TContext> = TContext extends { readonly callExternal: unknown; readonly circuits: unknown }
  ? Context
  : TContext

/**
 * Middy demands that the caller of a handler gives the context that its middlewares make. With these signatures a handler with
 * circuits takes Lambda's own context, so that it is a `Handler` of `@types/aws-lambda`.
 *
 * From `const handler: SomeHandler = middy()…` the compiler takes `void | Result` for the result, because Lambda's type of a
 * handler also allows `void`, which is then no `Result`. The second signature leaves `void` out; nobody calls it.
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
