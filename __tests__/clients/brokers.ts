/** Clients of brokers and of mail. */

import amqp from 'amqplib'
import kafka from 'kafkajs'
import nodemailer from 'nodemailer'
import { patience } from '../support/time.ts'
import type { Client } from './client.ts'
import { muteService, smtpService } from './servers.ts'

export const kafkajs: Client = {
  kind: 'broker',
  isMute: true,
  serve: muteService,
  async call({ endpoint: { host, port, secure }, timeout = patience }) {
    const producer = new kafka.Kafka({
      brokers: [`${host}:${port}`],
      ssl: secure,
      connectionTimeout: timeout,
      requestTimeout: timeout,
      retry: { retries: 0 },
      logLevel: kafka.logLevel.NOTHING,
    }).producer()
    try {
      await producer.connect()
      return await producer.send({ topic: 't', messages: [{ value: 'v' }] })
    } finally {
      // It would wait for an answer.
      producer.disconnect().catch(() => {})
    }
  },
}

export const amqplib: Client = {
  kind: 'broker',
  isMute: true,
  serve: muteService,
  call: ({ endpoint: { host, port, secure }, timeout = patience }) =>
    amqp.connect(`${secure ? 'amqps' : 'amqp'}://${host}:${port}`, { timeout }),
}

export const nodemailerClient: Client = {
  kind: 'broker',
  serve: smtpService,
  call({ endpoint: { host, port, secure }, timeout = patience }, fault) {
    const isHalf = fault.startsWith('half')
    const transport = nodemailer.createTransport({
      host,
      port,
      secure,
      connectionTimeout: patience,
      greetingTimeout: isHalf ? patience : timeout,
      socketTimeout: isHalf ? timeout : patience,
    })
    return transport.sendMail({ from: 'a@example.org', to: 'b@example.org', text: 'Hello.' })
  },
}
