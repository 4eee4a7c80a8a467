import { describe, expect, it } from '@jest/globals'
import { commands, durationOption, numberOption, readArguments, textOption } from '../../../src/cli/arguments.ts'

describe('arguments', () => {
  it('names the command, the circuits and the options', () => {
    expect(readArguments(['open', 'stripe', '--for', '10m', 'paypal', '-t', 'orders', '--why', 'maintenance'])).toEqual(
      {
        command: 'open',
        keys: ['stripe', 'paypal'],
        values: { for: '10m', table: 'orders', why: 'maintenance' },
      },
    )
  })

  it.each([[[]], [['--help']], [['-h']], [['help']]])('prints what there is for %j', (args) => {
    const { help } = readArguments(args) as { help: string }
    for (const name of Object.keys(commands)) expect(help).toContain(`  ${name} `)
  })

  it.each(Object.keys(commands))('has help with an example that it understands: %s', (name) => {
    const { help } = readArguments([name, '--help']) as { help: string }
    expect(readArguments(['help', name])).toEqual({ help })
    const example = /For example: mcb (.+)$/.exec(help)?.[1] ?? ''
    const args = Array.from(example.matchAll(/"([^"]+)"|(\S+)/g), ([, quoted, bare]) => quoted ?? (bare as string))
    expect(readArguments(args)).toMatchObject({ command: name })
  })

  it.each([
    [['lss'], 'There is no command "lss". Did you mean ls?'],
    [['qqqqqq'], 'There is no command "qqqqqq". There are ls, show'],
    [['ls', '--tablee', 'x'], 'ls has no option --tablee. Did you mean --table?'],
    [['ls', '--zzzzzzz'], 'ls has no option --zzzzzzz. See mcb ls --help.'],
    [['ls', '--table'], "Option '-t, --table <value>' argument missing. See mcb ls --help."],
    [['ls', 'stripe'], 'ls takes no circuit, but got 1.'],
    [['show'], 'show takes one circuit, but got 0. For example: mcb show stripe'],
    [['show', 'a', 'b'], 'show takes one circuit, but got 2.'],
    [['open'], 'open takes at least one circuit, but got 0.'],
    [['log', 'a', 'b'], 'log takes at most one circuit, but got 2.'],
  ])('refuses %j', (args, message) => {
    expect(() => readArguments(args)).toThrow(message)
  })

  it('refuses values that cannot be', () => {
    expect(() => textOption({ why: ' ' }, 'why')).toThrow('--why must not be empty.')
    expect(() => durationOption({ for: '10' }, 'for')).toThrow(
      '--for must be a duration such as 90s, 10m, 2h or 1d, but is "10".',
    )
    expect(() => numberOption({ limit: '0' }, 'limit', 1, 5)).toThrow(
      '--limit must be a whole number from 1 to 5, but is "0".',
    )
    expect(numberOption({ limit: '5' }, 'limit', 1, 5)).toBe(5)
  })
})
