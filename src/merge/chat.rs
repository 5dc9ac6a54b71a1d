//! The chat templates that mergekit has by name, written anew: each renders system, user and assistant turns the way
//! mergekit 0.1.5's does, with and without a generation prompt (blanks and line breaks included, odd as some are).
//!
//! The formats are Stanford Alpaca's prompts, OpenAI's ChatML, and what the model cards of EXAONE 3, Llama 3 and Mistral
//! 7B Instruct describe.

/// The template of that name.
pub fn built_in(name: &str) -> Option<&'static str> {
    BUILT_IN.iter().find(|(known, _)| *known == name).map(|(_, template)| *template)
}

/// Every name with its template.
pub const BUILT_IN: &[(&str, &str)] =
    &[("alpaca", ALPACA), ("chatml", CHATML), ("exaone", EXAONE), ("llama3", LLAMA3), ("mistral", MISTRAL)];

/// A system message stands before everything, wherever it was; turns are two line breaks apart.
const ALPACA: &str = r"{%- set ns = namespace(preamble='') -%}
{%- for message in messages if message.role == 'system' -%}
    {%- set ns.preamble = message.content | trim -%}
{%- endfor -%}
{{- ns.preamble ~ '\n\n' -}}
{%- for message in messages -%}
    {%- set heading = {'user': 'Instruction', 'assistant': 'Response'}.get(message.role) -%}
    {%- if heading -%}
        {{- '### ' ~ heading ~ ':\n' ~ message.content | trim -}}
        {%- if not loop.last -%}
            {{- '\n\n' -}}
        {%- endif -%}
    {%- endif -%}
{%- endfor -%}
{%- if add_generation_prompt and messages[-1].role != 'assistant' -%}
    {{- '### Response:\n' -}}
{%- endif -%}
";

const CHATML: &str = r"{%- for message in messages -%}
    {{- '<|im_start|>' ~ message.role ~ '\n' ~ message.content ~ '<|im_end|>\n' -}}
{%- endfor -%}
{%- if add_generation_prompt -%}
    {{- '<|im_start|>assistant\n' -}}
{%- endif -%}
";

/// An empty system turn where the conversation has none; only what the user says is not closed.
const EXAONE: &str = r"{%- if messages[0].role != 'system' -%}
    {{- '        [|system|][|endofturn|]\n\n' -}}
{%- endif -%}
{%- for message in messages -%}
    {%- set end = '' if message.role == 'user' else '[|endofturn|]' -%}
    {{- '    [|' ~ message.role ~ '|]' ~ message.content ~ '\n        ' ~ end ~ '\n\n' -}}
{%- endfor -%}
{%- if add_generation_prompt -%}
    {{- '    [|assistant|]\n' -}}
{%- endif -%}
";

const LLAMA3: &str = r"{%- macro header(role) -%}
    {{- '<|start_header_id|>' ~ role ~ '<|end_header_id|>\n\n' -}}
{%- endmacro -%}
{{- bos_token -}}
{%- for message in messages -%}
    {{- header(message.role) ~ message.content | trim ~ '<|eot_id|>\n' -}}
{%- endfor -%}
{%- if add_generation_prompt -%}
    {{- header('assistant') -}}
{%- endif -%}
";

/// A system message goes before what the user says first. An instruction ends with what makes the model answer, so a
/// generation prompt adds nothing.
const MISTRAL: &str = r"{%- set ns = namespace(preamble='') -%}
{%- if messages[0].role == 'system' -%}
    {%- set ns.preamble = messages[0].content ~ '\n\n' -%}
    {%- set turns = messages[1:] -%}
{%- else -%}
    {%- set turns = messages -%}
{%- endif -%}
{{- bos_token -}}
{%- for message in turns -%}
    {%- if message.role not in ['user', 'assistant'] -%}
        {{- raise_exception('expected turns of user and assistant after a system message, found ' ~ message.role) -}}
    {%- elif message.role != ['user', 'assistant'][loop.index0 % 2] -%}
        {{- raise_exception('expected user and assistant in turn, the user first') -}}
    {%- elif message.role == 'user' -%}
        {{- ' [INST] ' ~ ns.preamble ~ message.content ~ ' [/INST]' -}}
        {%- set ns.preamble = '' -%}
    {%- else -%}
        {{- ' ' ~ message.content ~ eos_token -}}
    {%- endif -%}
{%- endfor -%}
";
