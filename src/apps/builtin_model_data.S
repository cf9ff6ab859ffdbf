// The files of models/builtin, which is on the assembler's path, byte for byte.

#define EMBED(name, path, alignment)          \
        .balign alignment;                    \
        .global toaster_builtin_##name;       \
        .global toaster_builtin_##name##_end; \
toaster_builtin_##name:                       \
        .incbin path;                         \
toaster_builtin_##name##_end:

        .section .rodata
        EMBED(weights, "model.safetensors", 64)
        EMBED(config, "config.json", 1)
        EMBED(tokenizer, "tokenizer.json", 1)
        EMBED(prompt_texts, "encoding/prompt_texts.json", 1)

        .section .note.GNU-stack, "", %progbits
