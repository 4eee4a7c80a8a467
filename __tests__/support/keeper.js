import { createServer } from 'node:http'
import { missingPackages } from '../../scripts/packages.ts'

/**
 * Keeps servers that test files share, for one run of Jest: Java takes seconds to start. Each is started when the first
 * test asks for it at the address in `SERVER_KEEPER`, and stopped with the run.
 */
export default async function startKeeper() {
  if (missingPackages().length > 0) console.error('Some tests need packages that are not installed: npm run packages')
  let database
  const keeper = createServer(async (_request, response) => {
    try {
      const { startDynamoDBLocal } = await import('./dynamodb-local.ts')
      database ??= startDynamoDBLocal({ own: true })
      response.end(new URL((await database).endpoint).port)
    } catch (error) {
      response.writeHead(500).end(String(error))
    }
  })
  await new Promise((resolve) => keeper.listen(0, '127.0.0.1', resolve))
  keeper.unref()
  process.env.SERVER_KEEPER = `http://127.0.0.1:${keeper.address().port}`
  globalThis.stopKeeper = async () => {
    keeper.closeAllConnections()
    await new Promise((resolve) => keeper.close(resolve))
    await (await database)?.stop()
  }
}
