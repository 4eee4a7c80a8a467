/** Cannot be loaded. */

export const handler: unknown = undefined

throw Object.assign(new Error('no database at hand'), { name: 'SetUpError' })
