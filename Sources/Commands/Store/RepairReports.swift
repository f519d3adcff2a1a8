import ComposefsCommandSupport
import ComposefsJSON
import ComposefsOCI

extension RepairAction {
    /// One line of the report.
    func line(isPlan: Bool) -> String {
        func verb(_ done: String, _ planned: String) -> String { isPlan ? "would " + planned : done }
        func shown(_ path: ByteString) -> String { Output.printable(path) }
        switch self {
        case .metadataWritten(let fault): return verb("wrote", "write") + " meta.json again: \(fault)"
        case .setAside(let path, let target):
            return verb("set aside", "set aside") + " \(shown(path))" + (target.map { ", now \(shown($0))" } ?? "")
        case .objectsBrought(let count): return verb("copied", "copy") + " \(count) objects from the other repository"
        case .linkWritten(let path, let target): return verb("linked", "link") + " \(shown(path)) to \(shown(target))"
        case .regenerated(let image): return verb("rebuilt", "rebuild") + " \(shown(image)) from the contents of the store"
        case .fetched(let image, let source, let layers):
            let what = layers.map { $0 == 1 ? ", 1 layer" : ", \($0) layers" } ?? ""
            return verb("fetched", "fetch") + " \(shown(image)) from \(shown(source))" + what
        case .danglingRemoved(let path): return verb("removed", "remove") + " \(shown(path)), which leads to nothing"
        case .temporaryRemoved(let path): return verb("removed", "remove") + " \(shown(path)), left by an interrupted operation"
        }
    }

    /// `action` and the values of the action.
    var json: JSONValue {
        var members: [(key: String, value: JSONValue)] = [("action", .string(code))]
        switch self {
        case .metadataWritten(let fault): members += [("path", "meta.json"), ("detail", .string("\(fault)"))]
        case .setAside(let path, let target): members += [("path", .string(path.description)), ("to", .text(target))]
        case .objectsBrought(let count): members.append(("objects", .count(count)))
        case .linkWritten(let path, let target):
            members += [("path", .string(path.description)), ("target", .string(target.description))]
        case .regenerated(let image): members.append(("image", .string(image.jsonText)))
        case .fetched(let image, let source, let layers):
            members += [
                ("image", .string(image.jsonText)), ("from", .string(source.jsonText)), ("layers", layers.map { .count($0) } ?? .null),
            ]
        case .danglingRemoved(let path), .temporaryRemoved(let path): members.append(("path", .string(path.description)))
        }
        return .object(JSONObject(members))
    }
}

/// The result of `fsck --repair`, and the state of the store.
struct RepairedStore: CommandReport {
    var repair: RepairReport
    /// The findings after the repair; in a dry run, those before it.
    var checked: CheckedStore

    var lines: [String] {
        var lines = repair.actions.map { $0.line(isPlan: repair.isDryRun) }
        if repair.actions.isEmpty { lines.append("nothing to repair") }
        for path in repair.dangling { lines.append("\(Output.printable(path)) leads to nothing; --prune-dangling removes it") }
        if repair.isBusy { lines.append("temporary files of interrupted operations stay, because another process uses the repository") }
        for image in repair.images {
            let name = Output.printable(image.name)
            if let failure = image.failure {
                lines.append("\(name): damaged: \(describe(failure))")
            } else if image.isWhole {
                lines.append("\(name): whole" + (image.wasWhole ? "" : " again"))
            } else {
                lines.append("\(name): damaged")
            }
        }
        return lines + checked.lines
    }

    var json: JSONValue {
        var document = checked.json
        let images: [JSONValue] = repair.images.map { image in
            [
                "name": .string(image.name.jsonText), "manifestDigest": .text(image.manifestDigest), "wasWhole": .bool(image.wasWhole),
                "isWhole": .bool(image.isWhole), "reason": .text(image.failure.map(describe)),
            ]
        }
        document["repair"] = [
            "dryRun": .bool(repair.isDryRun), "actions": .array(repair.actions.map(\.json)), "images": .array(images),
            "danglingReferences": .array(repair.dangling.map { .string($0.description) }), "temporariesLeft": .bool(repair.isBusy),
        ]
        return document
    }
}
