package import ComposefsJSON

/// The names of the events that are lines of JSON. Names and keys are promised to scripts; Scripting.md of the documentation lists them, and a test
/// compares.
package enum EventName: String, Sendable, CaseIterable {
    // Of every command.
    case schema, note, error
    // Of an operation as a whole.
    case resolving, resolved, began, merging, writingImage, manifest, referrers, publishing, tagMoved, stitching, diskStored, done
    // Of one layer.
    case layerQueued, layerStarted, layerProgress, layerVerified, layerStored, layerPresent, layerWaiting, layerRetrying, layerResumed
    case layerMounted, layerSent, layerMaterializing, layerMaterialized
    // Of a check or a repair.
    case objects, images, again, mending, repaired

    package var json: JSONValue { .string(rawValue) }

    /// The first line of each stream of events. The version grows when a key or an event changes its meaning or disappears, not when new ones
    /// are added.
    package static let schemaVersion = 1
    package static var schemaLine: JSONValue { ["event": schema.json, "version": .integer(Int64(schemaVersion))] }
}
