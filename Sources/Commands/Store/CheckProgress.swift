import ComposefsCommandSupport
import ComposefsJSON
import ComposefsOCI

/// The progress of a check or a repair: one line for the current step.
struct CheckState: ProgressState {
    private var text = "listing objects"

    mutating func apply(_ event: StoreCheckEvent, at time: Duration) {
        switch event {
        case .objects(let done, let total): text = "reading objects: \(done) of \(total)"
        default: if let line = event.line { text = line }
        }
    }

    func lines(width: Int, height: Int, time: Duration) -> [ProgressLine] { ProgressRenderer.oneLine(text, width: width) }
}

extension StoreCheckEvent: ShownEvent {
    var isFrequent: Bool {
        switch self {
        case .objects: true
        case .repair(.pull(let event)): event.isFrequent
        default: false
        }
    }

    var line: String? {
        switch self {
        case .objects(let done, let total): done == total ? "objects read: \(total)" : nil
        case .images: "checking images"
        case .again: "checking again"
        case .repair(.mending(let image)): "repairing \(Output.printable(image))"
        case .repair(.did(let action)): action.line(isPlan: false)
        case .repair(.pull(let event)): event.line
        }
    }

    var json: JSONValue {
        switch self {
        case .objects(let done, let total):
            ["event": EventName.objects.json, "objectsDone": .count(done), "objectsTotal": .count(total)]
        case .images: ["event": EventName.images.json]
        case .again: ["event": EventName.again.json]
        case .repair(.mending(let image)): ["event": EventName.mending.json, "image": .string(image.jsonText)]
        case .repair(.did(let action)): ["event": EventName.repaired.json, "action": action.json]
        case .repair(.pull(let event)): event.json
        }
    }
}
