#include "ctoml.h"

#define TOML_EXCEPTIONS 0
#define TOML_ENABLE_FORMATTERS 0
#define TOML_ENABLE_UNRELEASED_FEATURES 0
#define TOML_MAX_NESTED_VALUES 8
#include <toml++/toml.h>

#include <algorithm>
#include <cstring>
#include <string_view>

namespace {

struct Walk {
    ctoml_receiver receiver;
    void *context;

    void send(ctoml_event event, const toml::node &node, std::string_view key) const {
        event.line = node.source().begin.line;
        event.key = key.data();
        event.key_size = key.size();
        receiver(&event, context);
    }

    void visit(const toml::node &node, std::string_view key) const {
        ctoml_event event{};
        if (const auto *table = node.as_table()) {
            event.kind = ctoml_table_begin;
            send(event, node, key);
            for (auto &&[name, value] : *table) visit(value, name.str());
            event.kind = ctoml_table_end;
        } else if (const auto *array = node.as_array()) {
            event.kind = ctoml_array_begin;
            send(event, node, key);
            for (auto &&value : *array) visit(value, {});
            event.kind = ctoml_array_end;
        } else if (const auto *text = node.as_string()) {
            event.kind = ctoml_string;
            event.text = text->get().data();
            event.text_size = text->get().size();
        } else if (const auto *integer = node.as_integer()) {
            event.kind = ctoml_integer;
            event.integer = integer->get();
        } else if (const auto *boolean = node.as_boolean()) {
            event.kind = ctoml_boolean;
            event.integer = boolean->get();
        } else {
            event.kind = ctoml_other;
        }
        send(event, node, key);
    }
};

}  // namespace

uint32_t ctoml_parse(const char *bytes, size_t size, ctoml_receiver receiver, void *context, char *message, size_t message_size) {
    const toml::parse_result result = toml::parse(std::string_view(size ? bytes : "", size));
    if (result) {
        Walk{receiver, context}.visit(result.table(), {});
        return 0;
    }
    if (message_size > 0) {
        const std::string_view text = result.error().description();
        const size_t count = std::min(text.size(), message_size - 1);
        std::memcpy(message, text.data(), count);
        message[count] = 0;
    }
    return std::max<uint32_t>(1, result.error().source().begin.line);
}
