import ComposefsTestSupport
import Glibc
import Testing

@testable import ComposefsCommands

/// The documents: their command lines are run, and they name the options that the program has.
@Suite struct DocumentTests {
    private static let top = Fixtures.folder + "/../.."
    private static let catalog = top + "/Sources/ComposefsOCI/ComposefsOCI.docc"
    static let documents: [String] = {
        let articles = (try? launch("ls", [catalog]).lines) ?? []
        return [top + "/README.md", top + "/Repo-Format.md"] + articles.filter { $0.hasSuffix(".md") }.map { catalog + "/" + $0 }
    }()

    private func text(_ path: String) throws -> String { String(decoding: try readFile(path), as: UTF8.self) }

    /// Every command after `$ ` in a document prints what the document says.
    @Test(.enabled(if: isRoot, "needs root"))
    func transcripts() throws {
        let arguments = ["--binary", Cfsoci.binary, "--check"] + Self.documents
        let result = try launch(Self.top + "/tools/transcripts", arguments)
        #expect(result.status == 0, "\(result.text)\(result.error)")
        #expect(result.text.hasSuffix(" commands print what the documents say.\n"), "\(result.text)")
    }

    /// Command lines in blocks without output and in sentences: what `cfsoci` is given there parses, and every tool exists. The tools that install,
    /// build and test are run by CI.
    @Test func commandLines() throws {
        let names = Set(ConfinementTable.all.map(\.name))
        var count = 0
        for document in Self.documents {
            for line in Self.commandLines(try text(document)) {
                let words = Self.words(line)
                guard let name = words.first else { continue }
                count += 1
                if name.hasPrefix("tools/") {
                    #expect(access(Self.top + "/" + name, F_OK) == 0, "\(document): \(line)")
                    continue
                }
                let arguments = Array(words.dropFirst())
                // `cfsoci boot image` in a sentence names a command and is no command line.
                guard !names.contains(arguments.joined(separator: " ")), arguments.count > 1 else { continue }
                if let fault = Self.fault(of: arguments) { Issue.record("\(document): \(line): \(fault)") }
            }
        }
        #expect(count > 60)
    }

    /// The lines of blocks, besides those that `transcripts` runs, and the code spans that begin with a program of this project.
    private static func commandLines(_ text: String, withTranscripts: Bool = false) -> [String] {
        var found: [String] = []
        var isBlock = false
        for line in text.split(separator: "\n", omittingEmptySubsequences: false) {
            if line.hasPrefix("```") {
                isBlock.toggle()
            } else if isBlock {
                found.append(withTranscripts && line.hasPrefix("$ ") ? String(line.dropFirst(2)) : String(line))
            } else {
                for (index, span) in line.split(separator: "`", omittingEmptySubsequences: false).enumerated() where index % 2 == 1 {
                    found.append(String(span))
                }
            }
        }
        return found.filter { $0.hasPrefix("cfsoci ") || $0.hasPrefix("tools/") }
    }

    /// The words of a command line up to what is the shell's.
    private static func words(_ line: String) -> [String] {
        var words: [String] = []
        var word = ""
        var quote: Character?
        for character in line + " " {
            switch (character, quote) {
            case ("'", nil), ("\"", nil): quote = character
            case (_, let open?) where open == character: quote = nil
            case (" ", nil):
                if ["|", ">", "<", ">>", "2>", "&&", "||", "&", "#"].contains(word) { return words }
                let isLast = word.hasSuffix(";")
                if !word.isEmpty { words.append(isLast ? String(word.dropLast()) : word) }
                if isLast { return words }
                word = ""
            default: word.append(character)
            }
        }
        return words
    }

    /// Why arguments are no command line; nil if they are. Placeholders in capitals stand for values.
    private static func fault(of arguments: [String]) -> String? {
        if arguments.contains(where: { $0.contains("…") || $0 == "COMMAND" }) { return nil }
        if arguments.first == "mkcomposefs" || arguments.first == "composefs-info" || arguments.first == "mount.composefs" { return nil }
        if arguments.contains("--generate-completion-script") || arguments.contains("--version") || arguments.contains("--help") {
            return nil
        }
        // A value that the parser checks.
        let samples = ["N/M": "1/7", "N": "1", "SIZE": "4G", "SECONDS": "5", "AGE": "4w", "REPO": "/repo"]
        let arguments = arguments.map { samples[$0] ?? $0 }
        do {
            _ = try ComposefsCommands.Cfsoci.command(of: arguments)
            return nil
        } catch {
            return "\(error)"
        }
    }

    // MARK: Options

    /// The article of all commands and options is what the program says of itself.
    @Test func commandReference() throws {
        let result = try launch(Self.top + "/tools/package.d/manual.py", [Cfsoci.binary, "--markdown"])
        #expect(result.status == 0, "\(result.error)")
        let article = try text(Self.catalog + "/CommandReference.md")
        #expect(
            result.text == article,
            "write it again: tools/package.d/manual.py .build/debug/cfsoci --markdown > Sources/ComposefsOCI/ComposefsOCI.docc/CommandReference.md"
        )
    }

    /// Help, manual pages and documents name the same options: each option of a help is in its page, and each one in a page or a document is
    /// an option of a command.
    @Test func optionsAgree() throws {
        let folder = try TemporaryFolder()
        let made = try launch(Self.top + "/tools/package.d/manual.py", [Cfsoci.binary, folder.path, "2026-01-01"])
        #expect(made.status == 0, "\(made.error)")
        let root = try Cfsoci.succeed(["--help"]).text
        let global = Self.options(root)
        var all = global
        for name in Set(ConfinementTable.all.map { String($0.name.prefix { $0 != " " }) }) {
            var helped: Set<String> = []
            for (command, _) in ConfinementTable.all where command == name || command.hasPrefix(name + " ") {
                helped.formUnion(Self.options(try Cfsoci.succeed(command.split(separator: " ").map(String.init) + ["--help"]).text))
            }
            let shown = Self.options(try page(folder.path + "/cfsoci-\(name).1"))
            #expect(helped.subtracting(shown).subtracting(global).isEmpty, "the page of \(name) lacks options of its help")
            all.formUnion(helped)
        }
        let overview = Self.options(try page(folder.path + "/cfsoci.1"))
        #expect(global.subtracting(overview).isEmpty)
        // Options of the tools with other names, of tools/… and of other programs that the documents call.
        all.formUnion(Self.options(try launch(Cfsoci.binary, ["mkcomposefs", "--help"]).text))
        all.formUnion(Self.options(try launch(Cfsoci.binary, ["composefs-info", "--help"]).text))
        // The parser's own, which no help lists.
        all.insert("--generate-completion-script")
        for name in try launch("ls", [folder.path]).lines {
            let unknown = Self.options(try page(folder.path + "/" + name)).subtracting(all)
            #expect(unknown.isEmpty, "\(name) names options that no help has")
        }
        for document in Self.documents {
            for line in Self.commandLines(try text(document), withTranscripts: true) where line.hasPrefix("cfsoci ") {
                let unknown = Self.options(Self.words(line).joined(separator: " ")).subtracting(all)
                #expect(unknown.isEmpty, "\(document): \(line)")
            }
        }
    }

    /// A manual page without the marks of roff.
    private func page(_ path: String) throws -> String {
        ["\\fB", "\\fR", "\\fI"].reduce(try text(path)) { $0.replacing($1, with: " ") }.replacing("\\-", with: "-")
    }

    /// Long options in a text.
    private static func options(_ text: String) -> Set<String> {
        var found: Set<String> = []
        for word in text.split(whereSeparator: { !($0.isLetter || $0.isNumber || $0 == "-") }) where word.hasPrefix("--") {
            let name = word.dropFirst(2)
            if name.first?.isLetter == true { found.insert("--" + name) }
        }
        return found
    }
}
