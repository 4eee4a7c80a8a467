/**
 * Redis servers and a cluster of them for the tests, on free ports of the loopback interface. They keep nothing on disk
 * and end with the process that started them.
 *
 * @module
 */

import { type ChildProcess, execFile, spawn } from 'node:child_process'
import { randomInt } from 'node:crypto'
import { mkdtemp, readFile, rm, writeFile } from 'node:fs/promises'
import { type AddressInfo, createConnection, createServer, type Server, type Socket } from 'node:net'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { promisify } from 'node:util'
import { Cluster, type ClusterOptions, Redis, type RedisOptions } from 'ioredis'
import { installRedisServer } from '../../scripts/redis-server.ts'
import { patience, waitFor } from './time.ts'

const run = promisify(execFile)

export interface RedisServerOptions {
  /** Of the user `default`. */
  readonly password?: string
  /** Access rules as in a configuration file, for instance `alice on >secret ~* +@all`. */
  readonly users?: readonly string[]
  /** Encrypted connections only, with a certificate made for this server. */
  readonly tls?: boolean
  /** Further settings, for instance `{ maxmemory: '1mb' }`. */
  readonly settings?: Readonly<Record<string, string>>
}

export interface RedisServer {
  readonly port: number
  /** Without user and password. */
  readonly url: string
  /** The certificate, if there is one; it is its own authority. */
  readonly certificate: string | undefined
  /** A new client of ioredis, as the user `default`; `stop` disconnects it. */
  client(options?: RedisOptions): Redis
  /** As if its host had failed: no connection is closed properly, and what was stored is lost. */
  kill(): Promise<void>
  /** Starts it again after `kill`, on the same port. */
  restart(): Promise<void>
  /** Ends it and removes what it has left. */
  stop(): Promise<void>
}

/**
 * Starts a server; installs Redis if need be. Where `RUNNING_REDIS_PORT` names one that runs already, that one is used
 * by whoever wants no settings; `stop` leaves it running, and it cannot be killed.
 */
export async function startRedis(options: RedisServerOptions = {}): Promise<RedisServer> {
  const running = process.env['RUNNING_REDIS_PORT']
  if (running && Object.keys(options).length === 0) return serverAt(Number(running), options, undefined, unkillable)
  await installRedisServer()
  const [port = 0] = await freePorts(1)
  return startOn(port, options)
}

async function startOn(
  port: number,
  { password, users = [], tls = false, settings }: RedisServerOptions,
): Promise<RedisServer> {
  const folder = await mkdtemp(join(tmpdir(), 'circuit-redis-'))
  const certificate = tls ? await makeCertificate(folder) : undefined
  const configuration: Record<string, string> = {
    bind: '127.0.0.1',
    dir: folder,
    save: '',
    appendonly: 'no',
    ...(tls
      ? {
          port: '0',
          'tls-port': String(port),
          'tls-cert-file': join(folder, 'certificate.pem'),
          'tls-key-file': join(folder, 'key.pem'),
          'tls-ca-cert-file': join(folder, 'certificate.pem'),
          'tls-auth-clients': 'no',
        }
      : { port: String(port) }),
    ...(password === undefined ? {} : { requirepass: password }),
    ...settings,
  }
  const args = [
    ...Object.entries(configuration).flatMap(([name, value]) => [`--${name}`, value]),
    ...users.flatMap((user) => ['--user', ...user.split(' ')]),
  ]
  let process = await startProcess(args)
  const server = serverAt(port, { ...(password === undefined ? {} : { password }), tls }, certificate, {
    kill: () => process.kill(),
    restart: async () => {
      process = await startProcess(args)
    },
  })
  return {
    ...server,
    stop: async () => {
      await server.stop()
      await process.kill()
      await rm(folder, { recursive: true, force: true })
    },
  }
}

const unkillable: Pick<RedisServer, 'kill' | 'restart'> = {
  kill: () => Promise.reject(new Error('This server is not the test’s own.')),
  restart: () => Promise.reject(new Error('This server is not the test’s own.')),
}

function serverAt(
  port: number,
  { password, tls = false }: RedisServerOptions,
  certificate: string | undefined,
  life: Pick<RedisServer, 'kill' | 'restart'>,
): RedisServer {
  const clients: Redis[] = []
  return {
    ...life,
    port,
    url: `${tls ? 'rediss' : 'redis'}://127.0.0.1:${port}`,
    certificate,
    client: (own = {}) => {
      const client = new Redis({
        host: '127.0.0.1',
        port,
        connectTimeout: patience,
        ...(password === undefined ? {} : { password }),
        ...(certificate === undefined ? {} : { tls: { ca: certificate } }),
        ...own,
      } as RedisOptions & { replyMapping?: 'legacy' })
      client.on('error', () => {})
      clients.push(client)
      return client
    },
    stop: async () => {
      for (const client of clients) if (client.status !== 'end') client.disconnect()
    },
  }
}

export interface RedisCluster {
  readonly nodes: readonly RedisServer[]
  /** A new client of ioredis; `stop` disconnects it. */
  client(options?: Omit<ClusterOptions, 'redisOptions'>, user?: { username: string; password: string }): Cluster
  /**
   * Moves one slot with its keys to the other node, as `redis-cli --cluster reshard` does.
   *
   * @param midway awaited while the source still has the keys, and again while the target has them and nobody knows it
   */
  moveSlot(slot: number, from: RedisServer, to: RedisServer, midway: () => Promise<unknown>): Promise<void>
  /** Waits until every node that answers says that the cluster is well. */
  settled(): Promise<void>
  stop(): Promise<void>
}

/** Starts a cluster of three masters without replicas; a node that is down leaves the slots of the others served. */
export async function startRedisCluster(): Promise<RedisCluster> {
  await installRedisServer()
  const ports = await freePorts(6)
  const nodes = await Promise.all(
    ports.slice(0, 3).map((port, index) =>
      startOn(port, {
        settings: {
          'cluster-enabled': 'yes',
          'cluster-port': String(ports[index + 3]),
          // No stall of a node makes the others take it for dead.
          'cluster-node-timeout': String(patience),
          'cluster-require-full-coverage': 'no',
        },
      }),
    ),
  )
  const addresses = nodes.map(({ port }) => `127.0.0.1:${port}`)
  await run('redis-cli', ['--cluster', 'create', ...addresses, '--cluster-yes'])
  const administrators = new Map(nodes.map((node) => [node, node.client()]))
  const ask = (node: RedisServer, ...command: [string, ...string[]]) =>
    (administrators.get(node) as Redis).call(...command) as Promise<string>
  const settled = async () => {
    await waitFor(
      'all nodes say that the cluster is well, and where which slot is',
      async () => ({
        states: await Promise.all(nodes.map((node) => ask(node, 'cluster', 'info'))),
        views: await Promise.all(nodes.map((node) => ask(node, 'cluster', 'slots'))),
      }),
      ({ states, views }) =>
        new Set(views.map((view) => JSON.stringify(view))).size === 1 &&
        states.every((state) => state.includes('cluster_state:ok') && /slots_ok:16384/.test(state)),
      { every: 50 },
    )
  }
  const clients: Cluster[] = []
  await settled()
  return {
    nodes,
    settled,
    client: (options = {}, user = undefined) => {
      const client = new Cluster(
        nodes.map(({ port }) => ({ host: '127.0.0.1', port })),
        { slotsRefreshTimeout: patience, ...options, redisOptions: { connectTimeout: patience, ...user } },
      )
      client.on('error', () => {})
      clients.push(client)
      return client
    },
    moveSlot: async (slot, from, to, midway) => {
      const number = String(slot)
      const [source, target] = [await ask(from, 'cluster', 'myid'), await ask(to, 'cluster', 'myid')]
      await ask(to, 'cluster', 'setslot', number, 'importing', source)
      await ask(from, 'cluster', 'setslot', number, 'migrating', target)
      await midway()
      for (;;) {
        const keys = (await ask(from, 'cluster', 'getkeysinslot', number, '10')) as unknown as string[]
        if (keys.length === 0) break
        await ask(from, 'migrate', '127.0.0.1', String(to.port), '', '0', String(patience), 'KEYS', ...keys)
      }
      await midway()
      for (const node of [to, from, ...nodes.filter((other) => other !== to && other !== from)]) {
        await ask(node, 'cluster', 'setslot', number, 'node', target)
      }
    },
    stop: async () => {
      for (const client of clients) if (client.status !== 'end') client.disconnect()
      await Promise.all(nodes.map((node) => node.stop()))
    },
  }
}

/** Starts a sentinel that watches a server under the name `circuits`, and replaces it by none. */
export async function startSentinel(master: number): Promise<{ readonly port: number; stop(): Promise<void> }> {
  await installRedisServer()
  const [port = 0] = await freePorts(1)
  const folder = await mkdtemp(join(tmpdir(), 'circuit-sentinel-'))
  // A sentinel keeps what it knows in its configuration.
  const file = join(folder, 'sentinel.conf')
  await writeFile(file, `bind 127.0.0.1\nport ${port}\nsentinel monitor circuits 127.0.0.1 ${master} 1\n`)
  const process = await startProcess([file, '--sentinel'])
  return {
    port,
    stop: async () => {
      await process.kill()
      await rm(folder, { recursive: true, force: true })
    },
  }
}

export interface RedisProxy {
  readonly port: number
  /** How many connections were made through it. */
  connections(): number
  /** Lets the next reply of the server get lost with the connection that it came on. */
  loseNextReply(): void
  /** Lets the connections live, but nothing pass any more. */
  blackHole(): void
  stop(): Promise<void>
}

/** Starts a proxy for a server, which can lose what passes through it. */
export async function startProxy(target: { readonly port: number }): Promise<RedisProxy> {
  let losing = false
  const sockets = new Set<Socket>()
  let connections = 0
  const held = new WeakSet<Socket>()
  const server = createServer((downstream) => {
    connections += 1
    const upstream = createConnection(target.port, '127.0.0.1')
    for (const socket of [downstream, upstream]) {
      sockets.add(socket)
      socket.on('error', () => {})
      socket.on('close', () => {
        sockets.delete(socket)
        downstream.destroy()
        upstream.destroy()
      })
    }
    downstream.on('data', (data) => void (held.has(downstream) || upstream.write(data)))
    upstream.on('data', (data) => {
      if (held.has(upstream)) return
      if (losing) downstream.destroy()
      else downstream.write(data)
      losing = false
    })
  })
  await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve))
  return {
    port: (server.address() as AddressInfo).port,
    connections: () => connections,
    loseNextReply: () => {
      losing = true
    },
    blackHole: () => {
      for (const socket of sockets) held.add(socket)
    },
    stop: async () => {
      for (const socket of sockets) socket.destroy()
      await new Promise((resolve) => server.close(resolve))
    },
  }
}

/**
 * Runs `redis-server "$@"` and kills it when the standard input ends: with the pipe of a process that was itself killed,
 * too.
 */
const killedWithParent = `
exec 3<&0
redis-server "$@" 3<&- &
server=$!
{ cat <&3 >/dev/null; kill -9 "$server"; } 2>/dev/null &
wait "$server"
`

/** Resolves when the server accepts connections. */
async function startProcess(args: readonly string[]): Promise<{ readonly kill: () => Promise<void> }> {
  const shell = spawn('sh', ['-c', killedWithParent, 'sh', ...args], { stdio: ['pipe', 'pipe', 'pipe'] })
  shell.stdin.on('error', () => {})
  const ended = new Promise<void>((resolve) => shell.once('close', () => resolve()))
  await new Promise<void>((resolve, reject) => {
    let output = ''
    for (const stream of [shell.stdout, shell.stderr]) {
      stream.on('data', (chunk) => {
        output = `${output}${chunk}`.slice(-2_000)
        if (/ready to accept connections|\+monitor master/i.test(output)) resolve()
      })
    }
    ended.then(() => reject(new Error(`redis-server did not start: ${output}`)))
  })
  letParentExit(shell)
  return {
    kill: async () => {
      shell.ref()
      shell.stdin.end()
      await ended
    },
  }
}

/** A test that forgets to stop the server ends all the same, and the server with it. */
function letParentExit(child: ChildProcess): void {
  child.unref()
  for (const stream of [child.stdin, child.stdout, child.stderr]) (stream as Socket | null)?.unref()
}

/** Writes `certificate.pem` and `key.pem`, valid for two days; resolves to the certificate. */
async function makeCertificate(folder: string): Promise<string> {
  const file = join(folder, 'certificate.pem')
  const key = [
    '-newkey',
    'ec',
    '-pkeyopt',
    'ec_paramgen_curve:prime256v1',
    '-nodes',
    '-keyout',
    join(folder, 'key.pem'),
  ]
  const names = ['-subj', '/CN=localhost', '-addext', 'subjectAltName=IP:127.0.0.1,DNS:localhost']
  await run('openssl', ['req', '-x509', '-days', '2', ...key, '-out', file, ...names])
  return readFile(file, 'utf8')
}

/**
 * All are held at the same time, so that they differ. Below those that a machine gives to outgoing connections: none of
 * these takes a port before its server does, or while that is down.
 */
async function freePorts(count: number): Promise<number[]> {
  const probes = await Promise.all(Array.from({ length: count }, listenAnywhere))
  const ports = probes.map((probe) => (probe.address() as AddressInfo).port)
  await Promise.all(probes.map((probe) => new Promise((resolve) => probe.close(resolve))))
  return ports
}

async function listenAnywhere(): Promise<Server> {
  for (;;) {
    const server = createServer()
    const isListening = await new Promise<boolean>((resolve) => {
      server.once('error', () => resolve(false))
      server.listen(randomInt(10_000, 32_000), '127.0.0.1', () => resolve(true))
    })
    if (isListening) return server
  }
}
