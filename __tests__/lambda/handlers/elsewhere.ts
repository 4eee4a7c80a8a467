/** A function whose code is in another file, which a test has made. */

export const { handler } = await import(process.env['HANDLER_FILE'] as string)
