/**
 * Middy's types, as far as the middleware needs them. They are written out here, because Middy is an optional peer, and the
 * declarations of this package must hold without it, too.
 *
 * @module
 */

import type { Callback, Context } from 'aws-lambda'

// biome-ignore lint/suspicious/noExplicitAny: Middy's own type of what a middleware does not touch.
type Untouched = any

/** The part of Middy's request that every major version has. */
export interface Request<TEvent = unknown, TResult = Untouched, TErr = Error, TContext = Context, TInternal = object> {
  event: TEvent
  context: TContext
  response: TResult | null | undefined
  error: TErr | null | undefined
  internal: TInternal
}

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
  before: Hook<TEvent, TResult, TErr, TContext, TInternal>
  after: Hook<TEvent, TResult, TErr, TContext, TInternal>
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
