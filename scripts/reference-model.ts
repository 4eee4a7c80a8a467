/**
 * Reads the public interface of the package: what each entry of `package.json` exports, with its doc comments.
 *
 * The compiler of this repository is TypeScript 7, whose parser is a program of its own. API Extractor and TypeDoc run on older
 * ones: TypeDoc does not install beside it, and API Extractor leaves the comments of the members of a union, such as a
 * `reason`, in a block of code, and writes 414 pages. So this file asks the compiler itself, by the interface that it has
 * (`typescript/unstable/sync`).
 *
 * @module
 */

import { join, relative } from 'node:path'
import type * as Ast from 'typescript/unstable/ast'
import {
  isClassDeclaration,
  isConstructorDeclaration,
  isExpressionWithTypeArguments,
  isFunctionDeclaration,
  isGetAccessorDeclaration,
  isIdentifier,
  isIndexSignatureDeclaration,
  isInterfaceDeclaration,
  isLiteralTypeNode,
  isMappedTypeNode,
  isMethodDeclaration,
  isMethodSignatureDeclaration,
  isPropertyDeclaration,
  isPropertySignatureDeclaration,
  isTypeAliasDeclaration,
  isTypeLiteralNode,
  isTypeReferenceNode,
  isUnionTypeNode,
  SyntaxKind,
} from 'typescript/unstable/ast'
import { API, type Project, SymbolFlags, type Symbol as Symbols } from 'typescript/unstable/sync'
import { entryPoints } from './build.ts'

const root = join(import.meta.dirname, '..')

/** A doc comment. */
export interface Doc {
  readonly text: string
  /** Parameters by their names. */
  readonly params: readonly (readonly [name: string, text: string])[]
  readonly returns: string | undefined
  /** What is thrown: the errors, as the comment writes them, and when. */
  readonly throws: readonly (readonly [errors: string, when: string])[]
  readonly examples: readonly string[]
}

/** A literal of a union, or another part of it that has a comment. */
export interface Value {
  readonly code: string
  readonly doc: Doc | undefined
}

/** A field, a method or a constructor. */
export interface Member {
  readonly name: string
  readonly kind: 'field' | 'method' | 'constructor'
  /** The type of a field; of a method or a constructor its parameters and its result, one text for each overload. */
  readonly code: readonly string[]
  readonly doc: Doc | undefined
  /** The type whose comment it has, where it has none of its own. */
  readonly docOf: string | undefined
  readonly values: readonly Value[]
  readonly isOptional: boolean
}

/** A declaration that can be imported, or that one of those uses. */
export interface Declaration {
  readonly name: string
  readonly kind: 'class' | 'interface' | 'type' | 'function'
  /** Its file, from the root of the repository. */
  readonly file: string
  readonly code: string
  readonly doc: Doc | undefined
  readonly members: readonly Member[]
  readonly values: readonly Value[]
  /** The exported types that it extends, and whose members are not repeated. */
  readonly bases: readonly string[]
  /** The types that it uses and that no entry exports. */
  readonly uses: readonly Declaration[]
}

/** An entry of the package. */
export interface Entry {
  /** The name by which it is imported. */
  readonly name: string
  /** What its first comment says. */
  readonly doc: Doc | undefined
  /** The exports, by the name of the declaration; `default` is one of its `names`. */
  readonly exports: readonly { readonly names: readonly string[]; readonly declaration: Declaration }[]
}

type Declared = Ast.ClassDeclaration | Ast.InterfaceDeclaration | Ast.TypeAliasDeclaration | Ast.FunctionDeclaration

/** Reads all entries. The compiler runs as a process beside this one, until this returns. */
export function readReference(): Entry[] {
  const api = new API({ cwd: root })
  try {
    const config = join(root, 'tsconfig.build.json')
    const project = api.updateSnapshot({ openProjects: [config] }).getProject(config)
    if (project === undefined) throw new Error(`The compiler did not open ${config}.`)
    return new Reader(project).entries()
  } finally {
    api.close()
  }
}

/** Everything without a comment, as `file: name` or `file: name.member`. */
export function undocumented(entries: readonly Entry[]): string[] {
  const missing = new Set<string>()
  const seen = new Set<Declaration>()
  const visit = (declaration: Declaration): void => {
    if (seen.has(declaration)) return
    seen.add(declaration)
    const { file, name, doc, members, values, kind, uses } = declaration
    if (doc === undefined) missing.add(`${file}: ${name}`)
    for (const member of members) {
      if (member.doc === undefined) missing.add(`${file}: ${name}.${member.name}`)
      const isDocumented = member.values.some((value) => value.doc !== undefined)
      for (const value of isDocumented ? documentable(member.values) : [])
        missing.add(`${file}: ${name}.${member.name} ${value}`)
    }
    if (kind === 'type') for (const value of documentable(values)) missing.add(`${file}: ${name} ${value}`)
    uses.forEach(visit)
  }
  for (const { exports } of entries) for (const { declaration } of exports) visit(declaration)
  return [...missing].toSorted()
}

/** The literals of a union without a comment. */
function documentable(values: readonly Value[]): string[] {
  return values.filter(({ code, doc }) => code.startsWith("'") && doc === undefined).map(({ code }) => code)
}

class Reader {
  readonly #project: Project
  /** By file and name. */
  readonly #known = new Map<string, Declaration>()
  readonly #exported = new Set<string>()

  constructor(project: Project) {
    this.#project = project
  }

  entries(): Entry[] {
    const { checker, program } = this.#project
    const found = Object.entries(entryPoints)
      .filter(([name]) => name !== 'cli')
      .map(([name, file]) => {
        const source = program.getSourceFile(join(root, file))
        const symbol = source && checker.getSymbolAtLocation(source)
        if (source === undefined || symbol === undefined) throw new Error(`${file} is no module.`)
        const exported = checker.getExportsOfModule(symbol).flatMap((each) => {
          const declared = this.#target(each)?.declarations[0]?.resolve()
          if (declared === undefined || !isDeclared(declared))
            throw new Error(`${each.name} of ${file} is of no known kind.`)
          // `LambdaContext` is of another package, which documents it.
          return declared.getSourceFile().fileName.includes('/node_modules/') ? [] : [{ name: each.name, declared }]
        })
        for (const { declared } of exported) this.#exported.add(idOf(declared))
        return { name: name === 'index' ? 'middy-circuit-breaker' : `middy-circuit-breaker/${name}`, source, exported }
      })
    return found.map(({ name, source, exported }) => {
      const byId = Map.groupBy(exported, ({ declared }) => idOf(declared))
      const exports = Array.from(byId.values(), (same) => ({
        names: same.map((each) => each.name),
        declaration: this.#read((same[0] as (typeof same)[0]).declared),
      }))
      return { name, doc: docIn(/^\s*(\/\*\*[\s\S]*?\*\/)/.exec(source.text)?.[1]), exports }
    })
  }

  #read(node: Declared): Declaration {
    const known = this.#known.get(idOf(node))
    if (known !== undefined) return known
    const name = nameOf(node)
    const uses: Declaration[] = []
    const declaration = {
      name,
      file: fileOf(node),
      uses,
      bases: this.#heritage(node, false)
        .filter((base) => this.#exported.has(idOf(base)))
        .map(nameOf),
      ...this.#content(node),
    }
    // Before what it uses is read, which may use it.
    this.#known.set(idOf(node), declaration)
    for (const used of this.#used(node)) uses.push(this.#read(used))
    return declaration
  }

  #content(node: Declared): Omit<Declaration, 'name' | 'file' | 'bases' | 'uses'> {
    if (isTypeAliasDeclaration(node)) {
      const members = literalsIn(node.type)
        .flatMap(({ members: own }) => [...own].flatMap((each) => this.#member([each], node)))
        // Forbids what another part of a union has.
        .filter(({ code }) => code[0] !== 'never')
      return { kind: 'type', code: codeOf(node), doc: docOf(node), members, values: valuesOf(node.type) }
    }
    if (isFunctionDeclaration(node)) {
      const overloads = overloadsOf(node)
      // Each overload may say what is particular about it; the last one says the rest.
      const codes = overloads.map((each) => {
        const doc = each === overloads.at(-1) ? undefined : docOf(each)
        return doc === undefined ? codeOf(each) : `// ${oneLine(doc.text)}\n${codeOf(each)}`
      })
      return {
        kind: 'function',
        code: codes.join('\n'),
        doc: overloads.map(docOf).findLast(Boolean),
        members: [],
        values: [],
      }
    }
    const kind = isClassDeclaration(node) ? 'class' : 'interface'
    return { kind, code: codeOf(node), doc: docOf(node), members: this.#members(node), values: [] }
  }

  /** The members, with those of bases that nobody can import. */
  #members(node: Ast.ClassDeclaration | Ast.InterfaceDeclaration): Member[] {
    const byName = Map.groupBy([...node.members].filter(isPublic), memberName)
    const own = Array.from(byName.values(), (same) => this.#member(same, node)).flat()
    const inherited = this.#heritage(node, false)
      .filter((base) => !this.#exported.has(idOf(base)))
      .flatMap((base) => (isInterfaceDeclaration(base) || isClassDeclaration(base) ? this.#members(base) : []))
      .filter(({ name }) => !byName.has(name))
    return [
      ...own.filter(({ kind }) => kind === 'constructor'),
      ...inherited,
      ...own.filter(({ kind }) => kind !== 'constructor'),
    ]
  }

  /** A member, of which there may be overloads. */
  #member(all: readonly Ast.Node[], owner: Declared): Member[] {
    const bodiless = all.filter((each) => (each as Partial<Ast.MethodDeclaration>).body === undefined)
    const same = all.length > 1 ? bodiless : all
    const [first] = same
    if (first === undefined) return []
    const name = memberName(first)
    const own = same.map(docOf).find((doc) => doc !== undefined)
    const inherited = own === undefined ? this.#inheritedDoc(owner, name) : undefined
    const type = (first as Partial<Ast.PropertyDeclaration>).type
    return [
      {
        name,
        kind: isConstructorDeclaration(first) ? 'constructor' : isMethod(first) ? 'method' : 'field',
        code: same.map(memberCode),
        doc: own ?? inherited?.doc,
        docOf: inherited?.of,
        values: isMethod(first) || type === undefined ? [] : valuesOf(type),
        isOptional:
          (first as Partial<Ast.PropertySignatureDeclaration>).postfixToken?.kind === SyntaxKind.QuestionToken,
      },
    ]
  }

  /** The comment of the same member in what the owner extends or implements. */
  #inheritedDoc(owner: Declared, name: string): { readonly doc: Doc; readonly of: string } | undefined {
    for (const base of this.#heritage(owner)) {
      if (!isInterfaceDeclaration(base) && !isClassDeclaration(base)) continue
      const doc = [...base.members]
        .filter((each) => memberName(each) === name)
        .map(docOf)
        .find(Boolean)
      if (doc !== undefined) return { doc, of: nameOf(base) }
      const further = this.#inheritedDoc(base, name)
      if (further !== undefined) return further
    }
    return undefined
  }

  /** What is extended and, if wanted, implemented, as far as it is declared in this package. */
  #heritage(node: Declared, withImplemented = true): Declared[] {
    if (!isInterfaceDeclaration(node) && !isClassDeclaration(node)) return []
    return [...(node.heritageClauses ?? [])]
      .filter(({ token }) => withImplemented || token === SyntaxKind.ExtendsKeyword)
      .flatMap(({ types }) => [...types].flatMap(({ expression }) => this.#declared(expression) ?? []))
  }

  /** The declarations that a public one uses and nobody can import. */
  #used(node: Declared): Declared[] {
    const found = new Map<string, Declared>()
    const visit = (each: Ast.Node): void => {
      if (!isPublic(each)) return
      const name = isTypeReferenceNode(each)
        ? each.typeName
        : isExpressionWithTypeArguments(each)
          ? each.expression
          : undefined
      const declared = name === undefined ? undefined : this.#declared(name)
      if (declared !== undefined && !this.#exported.has(idOf(declared)) && isPublic(declared)) {
        if (isExpressionWithTypeArguments(each)) visit(declared)
        else found.set(idOf(declared), declared)
      }
      each.forEachChild((child) => {
        if (
          child !== (each as Partial<Ast.MethodDeclaration>).body &&
          child !== (each as Partial<Ast.PropertyDeclaration>).initializer
        )
          visit(child)
      })
    }
    for (const each of isFunctionDeclaration(node) ? overloadsOf(node) : [node]) visit(each)
    return [...found.values()]
  }

  #declared(name: Ast.Node): Declared | undefined {
    if (!isIdentifier(name)) return undefined
    const [first] = this.#target(this.#project.checker.getSymbolAtLocation(name))?.declarations ?? []
    if (first === undefined || !first.path.startsWith(join(root, 'src'))) return undefined
    const declared = first.resolve()
    return declared !== undefined && isDeclared(declared) ? declared : undefined
  }

  /** What a name that was imported or exported again stands for. Asked of another, the compiler has no answer. */
  #target(symbol: Symbols | undefined): Symbols | undefined {
    const isAlias = symbol !== undefined && (symbol.flags & SymbolFlags.Alias) !== 0
    return isAlias ? this.#project.checker.getAliasedSymbol(symbol) : symbol
  }
}

function isDeclared(node: Ast.Node): node is Declared {
  return (
    isClassDeclaration(node) ||
    isInterfaceDeclaration(node) ||
    isTypeAliasDeclaration(node) ||
    isFunctionDeclaration(node)
  )
}

/** The signatures of a function that callers see. */
function overloadsOf(node: Ast.FunctionDeclaration): Ast.FunctionDeclaration[] {
  const all = [...node.getSourceFile().statements].filter(
    (each): each is Ast.FunctionDeclaration => isFunctionDeclaration(each) && nameOf(each) === nameOf(node),
  )
  return all.length === 1 ? all : all.filter(({ body }) => body === undefined)
}

function isMethod(node: Ast.Node): boolean {
  return isMethodDeclaration(node) || isMethodSignatureDeclaration(node) || isConstructorDeclaration(node)
}

/** Not a private name, a static block or something for this package alone. */
function isPublic(node: Ast.Node): boolean {
  const isMember =
    isMethod(node) ||
    isPropertyDeclaration(node) ||
    isPropertySignatureDeclaration(node) ||
    isGetAccessorDeclaration(node)
  if (node.kind === SyntaxKind.ClassStaticBlockDeclaration || (isMember && memberName(node).startsWith('#')))
    return false
  return !/@internal\b/.test(commentOf(node) ?? '')
}

function nameOf(node: Declared): string {
  return (node.name as Ast.Identifier).text
}

function memberName(node: Ast.Node): string {
  if (isConstructorDeclaration(node)) return 'constructor'
  if (isIndexSignatureDeclaration(node)) return `[${node.parameters[0]?.getText()}]`
  return (node as Partial<Ast.MethodDeclaration>).name?.getText() ?? `#${node.kind}`
}

function fileOf(node: Ast.Node): string {
  return relative(root, node.getSourceFile().fileName)
}

function idOf(node: Declared): string {
  return `${fileOf(node)}#${nameOf(node)}`
}

/** The members of type literals in a type, but for those within members and within mapped types. */
function literalsIn(type: Ast.Node): Ast.TypeLiteralNode[] {
  if (isTypeLiteralNode(type)) return [type]
  if (isMappedTypeNode(type)) return []
  const found: Ast.TypeLiteralNode[] = []
  type.forEachChild((child) => void found.push(...literalsIn(child)))
  return found
}

function valuesOf(type: Ast.Node): Value[] {
  if (!isUnionTypeNode(type)) return []
  let end = type.getFullStart()
  return [...type.types].flatMap((part) => {
    // The comment stands before the bar.
    const before = type.getSourceFile().text.slice(end, part.getStart())
    end = part.getEnd()
    const doc = docIn(/\/\*\*[\s\S]*?\*\//.exec(before)?.[0])
    const code = withoutComments(part.getText())
    return isLiteralTypeNode(part) || doc !== undefined || isTypeReferenceNode(part) ? [{ code, doc }] : []
  })
}

/** The declaration without its comments, its body and `export`. */
function codeOf(node: Declared): string {
  const { text } = node.getSourceFile()
  const end = isFunctionDeclaration(node)
    ? (node.body?.getStart() ?? node.getEnd())
    : isTypeAliasDeclaration(node)
      ? node.getEnd()
      : text.lastIndexOf('{', node.members.pos)
  return withoutComments(text.slice(node.getStart(), end))
    .replace(/^export (declare )?/, '')
    .replace(/[;\s]+$/, '')
}

function memberCode(node: Ast.Node): string {
  if (isMethod(node)) {
    const { body } = node as Partial<Ast.MethodDeclaration>
    const { text } = node.getSourceFile()
    const code = withoutComments(text.slice(node.getStart(), body?.getStart() ?? node.getEnd()))
    return unindented(code.replace(/^async /, '').replace(/[;\s]+$/, ''))
  }
  const { type, initializer } = node as Partial<Ast.PropertyDeclaration>
  return oneLine(withoutComments((type ?? initializer)?.getText() ?? 'unknown'))
}

function withoutComments(code: string): string {
  return code.replace(/\s*\/\*\*[\s\S]*?\*\//g, '').replace(/\s*\/\/ biome-ignore.*$/gm, '')
}

/** Further lines begin where the last one does, but for what is indented in them. */
function unindented(code: string): string {
  const indentation = /\n( *)\S.*$/.exec(code)?.[1] ?? ''
  return code.replaceAll(`\n${indentation}`, '\n')
}

function oneLine(code: string): string {
  return code.replace(/\s+/g, ' ').replace(/^\| /, '').trim()
}

function commentOf(node: Ast.Node): string | undefined {
  const text = node.jsDoc?.at(-1)?.getText()
  // It may have other comments before it.
  return text?.slice(text.lastIndexOf('/**'))
}

function docOf(node: Ast.Node): Doc | undefined {
  return docIn(commentOf(node))
}

/** Takes a comment apart. */
function docIn(comment: string | undefined): Doc | undefined {
  if (comment === undefined) return undefined
  const lines = comment
    .replace(/^\/\*\*/, '')
    .replace(/\*\/$/, '')
    .split('\n')
    .map((line, position) => line.replace(position === 0 ? /^\s+/ : /^\s*\* ?/, '').trimEnd())
  const [text = '', ...tags] = lines.join('\n').split(/^@(?=[a-z])/m)
  const tagged = tags
    .map((tag) => /^(\w+)\s*([\s\S]*)$/.exec(tag))
    .map((match) => [match?.[1], match?.[2]?.trim() ?? ''])
  const all = (name: string): string[] => tagged.filter(([tag]) => tag === name).map(([, content]) => content as string)
  const split = (content: string, pattern: RegExp): readonly [string, string] => {
    const match = pattern.exec(content)
    return [match?.[1] ?? '', match?.[2]?.trim() ?? content]
  }
  return {
    text: text.trim(),
    params: all('param').map((content) => split(content, /^(\w+)\s*([\s\S]*)$/)),
    returns: all('returns')[0],
    throws: all('throws').map((content) => split(content, /^\{([^}]*)\}\s*([\s\S]*)$/)),
    examples: all('example'),
  }
}
