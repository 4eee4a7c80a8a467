/**
 * What a fleet asks of its store: the real engine and middleware over a store that counts, in the virtual time of the
 * simulator. The same seed gives the same figures.
 *
 * @module
 */

import type { CircuitBreakerOptions } from '../../src/settings/table.ts'
import type { CircuitRecord, ICircuitStorage } from '../../src/storage/contract.ts'
import { engine } from '../simulation/engine.ts'
import { Instance, type Plan, service } from '../simulation/instance.ts'
import { inMacrotask } from '../simulation/microtasks.ts'
import type { CallRecord, Observer } from '../simulation/observer.ts'
import { healthy, type ServiceCondition, SimulatedService } from '../simulation/service.ts'
import { SimulatedStore } from '../simulation/store.ts'
import { World } from '../simulation/world.ts'

/** Requests as the DynamoDB adapter sends them. */
export interface Requests {
  readonly batchGetItem: number
  /** The circuits that these asked for: each is charged by itself. */
  readonly circuitsRead: number
  readonly getItem: number
  /** Those whose condition failed are charged too. */
  readonly updateItem: number
}

/** A fleet and its traffic. */
export interface FleetOptions {
  readonly instances: number
  /** Invocations of the whole fleet in a second, at Poisson times, spread evenly over its instances. */
  readonly rate: number
  readonly seed: number
  /** How many circuits a function has; one of them is called. Default: 1. */
  readonly services?: number
  /** What differs from the defaults. */
  readonly settings?: Partial<CircuitBreakerOptions>
  /** The probability that a call of a working service fails. Default: 0. */
  readonly errorRate?: number
}

export interface Healthy extends Requests {
  readonly invocations: number
}

export interface Outage {
  /** In the minute before it, for comparison with `during`; all of them reads. */
  readonly before: Requests
  /** From its first second until the circuit is stored as open. */
  readonly onset: Requests
  /** From the first second of the outage until a minute after its end. */
  readonly during: Requests
  readonly probes: number
  /** Calls that reached the dead service. */
  readonly reached: number
  /** Whether the circuit was stored as closed at the end. */
  readonly hasRecovered: boolean
}

/** How long an outage lasts, and how long after it is counted, in milliseconds. */
export const outageLength = 600_000
export const minute = 60_000

/** The service is down, not slow. */
const down: ServiceCondition = { errorRate: 1, latency: healthy.latency, failureLatency: 10 }
const plan: Plan = { calls: 1, atOnce: false, timeout: false, deadline: 3_000 }
/** As many as `BatchGetItem` takes. */
const keysPerBatch = 100

/** A store that counts what it is asked, as the requests that the DynamoDB adapter makes of it. */
class MeteredStore extends SimulatedStore {
  readonly #count = { batchGetItem: 0, circuitsRead: 0, getItem: 0, updateItem: 0 }

  get requests(): Requests {
    return { ...this.#count }
  }

  override storageFor(instance: Instance, isOperators?: boolean): ICircuitStorage {
    const storage = super.storageFor(instance, isOperators)
    const count = this.#count
    return {
      ...storage,
      getState: (key) => {
        count.getItem++
        return storage.getState(key)
      },
      batchGetState: (keys) => {
        count.batchGetItem += Math.ceil(keys.length / keysPerBatch)
        count.circuitsRead += keys.length
        return storage.batchGetState(keys)
      },
      addOutcomes: (...args) => {
        count.updateItem++
        return storage.addOutcomes(...args)
      },
      compareAndSetState: (...args) => {
        count.updateItem++
        return storage.compareAndSetState(...args)
      },
    }
  }
}

class Fleet implements Observer {
  readonly world: World
  readonly service: SimulatedService
  readonly store: MeteredStore
  invocations = 0
  probes = 0
  reached = 0
  /** What had been asked when the circuit was first stored as open. */
  untilOpen: Requests | undefined
  state: CircuitRecord['state'] = 'CLOSED'
  #isDown = false
  /** How many invocations wait for their instance, which does one at a time. */
  readonly #waiting: number[] = []

  constructor({ instances, rate, seed, services = 1, settings = {}, errorRate = 0 }: FleetOptions) {
    this.world = new World(seed)
    this.service = new SimulatedService(this.world)
    this.service.condition = { ...healthy, errorRate }
    this.store = new MeteredStore(this.world, engine, this)
    const others = Array.from({ length: services - 1 }, (_, index) => `other-${index + 1}`)
    const pause = (1_000 * instances) / rate
    for (let index = 0; index < instances; index++) {
      const instance = new Instance(index, this.world, engine, this.store, this.service, this, {
        settings: { ...settings, services: [service, ...others] },
        freezesBetween: true,
      })
      this.#waiting[index] = 0
      const come = (): void => {
        this.#invoke(instance)
        this.world.after(this.world.exponential(pause), come)
      }
      this.world.after(this.world.exponential(pause), come)
    }
  }

  breakDown(): void {
    this.service.condition = down
    this.#isDown = true
  }

  recover(): void {
    this.service.condition = healthy
    this.#isDown = false
  }

  operationStarted(call: CallRecord): void {
    if (!this.#isDown) return
    this.reached++
    if (call.shownState === 'HALF_OPEN') this.probes++
  }

  written(_before: CircuitRecord | undefined, after: CircuitRecord | undefined): void {
    this.state = after?.state ?? 'CLOSED'
    if (this.state === 'OPEN') this.untilOpen ??= this.store.requests
  }

  invocationEnded(instance: Instance): void {
    const waiting = this.#waiting[instance.index] as number
    if (waiting === 0) return
    this.#waiting[instance.index] = waiting - 1
    this.world.after(0, () => this.#invoke(instance))
  }

  #invoke(instance: Instance): void {
    if (instance.isBusy) {
      this.#waiting[instance.index] = (this.#waiting[instance.index] as number) + 1
    } else {
      this.invocations++
      instance.invoke(plan)
    }
  }
}

/** Counts what a fleet asks while its services work, from its cold start on. */
export function measureHealthy(options: FleetOptions, invocations: number): Promise<Healthy> {
  return inMacrotask(() => {
    const fleet = new Fleet(options)
    fleet.world.run((1_000 * invocations) / options.rate)
    return { invocations: fleet.invocations, ...fleet.store.requests }
  })
}

/** Counts what a fleet asks when one of its services fails for ten minutes. */
export function measureOutage(options: FleetOptions): Promise<Outage> {
  return inMacrotask(() => {
    const fleet = new Fleet(options)
    const { world, store } = fleet
    world.run(minute)
    const atRest = store.requests
    world.run(minute)
    const atBreakdown = store.requests
    fleet.breakDown()
    world.run(outageLength)
    fleet.recover()
    world.run(minute)
    return {
      before: between(atRest, atBreakdown),
      onset: between(atBreakdown, fleet.untilOpen ?? store.requests),
      during: between(atBreakdown, store.requests),
      probes: fleet.probes,
      reached: fleet.reached,
      hasRecovered: fleet.state === 'CLOSED',
    }
  })
}

function between(before: Requests, after: Requests): Requests {
  return {
    batchGetItem: after.batchGetItem - before.batchGetItem,
    circuitsRead: after.circuitsRead - before.circuitsRead,
    getItem: after.getItem - before.getItem,
    updateItem: after.updateItem - before.updateItem,
  }
}
