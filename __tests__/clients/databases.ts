/** The clients of databases. */

import { Redis } from 'ioredis'
import knexFor from 'knex'
import * as mariadb from 'mariadb'
import { MongoClient } from 'mongodb'
import mysql from 'mysql2/promise'
import pg from 'pg'
import { createClient } from 'redis'
import { type Options, Sequelize } from 'sequelize'
import { patience } from '../support/time.ts'
import type { Client } from './client.ts'
import { muteService, mysqlService, postgresService, redisService } from './servers.ts'

export const pgClient: Client = {
  kind: 'database',
  serve: postgresService,
  async call({ endpoint: { host, port, secure }, timeout }, fault) {
    const limit = fault.startsWith('half') ? 'query_timeout' : 'connectionTimeoutMillis'
    const client = new pg.Client({
      host,
      port,
      user: 'u',
      database: 'd',
      ssl: secure,
      ...(timeout !== undefined && { [limit]: timeout }),
    })
    client.on('error', () => {})
    try {
      await client.connect()
      return await client.query('SELECT 1')
    } finally {
      // biome-ignore lint/suspicious/noExplicitAny: the types hide the connection
      ;(client as any).connection.stream.destroy()
    }
  },
}

export const mysqlClient: Client = {
  kind: 'database',
  serve: mysqlService,
  async call({ endpoint: { host, port, secure }, timeout = patience }, fault) {
    const connectTimeout = fault.startsWith('half') ? patience : timeout
    const ssl = secure ? { ssl: { verifyIdentity: true } } : {}
    const connection = await mysql.createConnection({ host, port, user: 'u', connectTimeout, ...ssl })
    try {
      return await connection.query({ sql: 'SELECT 1', timeout })
    } finally {
      connection.destroy()
    }
  },
}

/** ioredis reconnects and resends by itself; `retryStrategy: null` switches that off. */
export function ioredis(options: {
  readonly maxRetriesPerRequest?: number
  readonly retryStrategy: () => number | null
}): Client {
  return {
    kind: 'database',
    serve: redisService,
    async call({ endpoint: { host, port, secure }, timeout }) {
      const client = new Redis({
        host,
        port,
        ...(secure && { tls: {} }),
        connectTimeout: patience,
        ...(timeout !== undefined && { commandTimeout: timeout }),
        ...options,
      })
      client.on('error', () => {})
      try {
        return await client.get('key')
      } finally {
        client.disconnect()
      }
    },
  }
}

export const redis: Client = {
  kind: 'database',
  serve: redisService,
  async call({ endpoint: { host, port, secure }, timeout }) {
    const limit = timeout === undefined ? {} : { socketTimeout: timeout }
    const socket = { host, port, connectTimeout: patience, reconnectStrategy: false, ...limit } as const
    const client = createClient({ socket: secure ? { ...socket, tls: true } : socket })
    client.on('error', () => {})
    try {
      await client.connect()
      return await client.get('key')
    } finally {
      if (client.isOpen) client.destroy()
    }
  },
}

export const mariadbClient: Client = {
  kind: 'database',
  serve: mysqlService,
  async call({ endpoint: { host, port, secure }, timeout = patience }, fault) {
    const isHalf = fault.startsWith('half')
    const connection = await mariadb.createConnection({
      host,
      port,
      user: 'u',
      ssl: secure,
      connectTimeout: isHalf ? patience : timeout,
      socketTimeout: isHalf ? timeout : 0,
    })
    connection.on('error', () => {})
    try {
      return await connection.query('SELECT 1')
    } finally {
      connection.destroy()
    }
  },
}

export const sequelize: Client = {
  kind: 'database',
  serve: postgresService,
  async call({ endpoint: { host, port, secure }, timeout }, fault) {
    const limit = fault.startsWith('half') ? 'query_timeout' : 'connectionTimeoutMillis'
    // Its types leave out the version, without which it asks for it.
    const options: Options & { databaseVersion: string } = {
      dialect: 'postgres',
      databaseVersion: '16.0.0',
      host,
      port,
      username: 'u',
      database: 'd',
      logging: false,
      dialectOptions: { ssl: secure, ...(timeout !== undefined && { [limit]: timeout }) },
    }
    const client = new Sequelize(options)
    try {
      return await client.query('SELECT 1')
    } finally {
      void client.close()
    }
  },
}

export const knex: Client = {
  kind: 'database',
  serve: mysqlService,
  async call({ endpoint: { host, port, secure }, timeout = patience }) {
    const silent = () => {}
    const client = knexFor({
      client: 'mysql2',
      connection: { host, port, user: 'u', ...(secure && { ssl: { verifyIdentity: true } }) },
      pool: { min: 0, max: 1 },
      acquireConnectionTimeout: timeout,
      log: { warn: silent, error: silent, debug: silent, deprecate: silent },
    })
    try {
      return await client.raw('SELECT 1')
    } finally {
      void client.destroy()
    }
  },
}

/** It asks for a server again and again, as long as `serverSelectionTimeoutMS` lets it. */
export const mongodb: Client = {
  kind: 'database',
  isMute: true,
  serve: muteService,
  async call({ endpoint: { host, port, secure }, timeout }, fault) {
    const limit = timeout ?? (fault.startsWith('no answer') ? patience : 200)
    const client = new MongoClient(`mongodb://${host}:${port}`, { tls: secure, serverSelectionTimeoutMS: limit })
    try {
      return await client.db('d').collection('c').findOne()
    } finally {
      await client.close()
    }
  },
}
