"""Word lists of twelve kinds of writing for the text benchmark: four tasks, each named in three ways, and words to fill with.

Words of a kind are joined by ``gap``. In inflected languages the ways of naming a task are forms of a word.
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Writing:
    """One kind of writing: ``tasks`` (4 × 3 ways of naming), ``filler`` words, and what stands between words."""

    name: str
    tasks: tuple[tuple[str, ...], ...]
    filler: tuple[str, ...]
    gap: str = " "


def _writing(name: str, tasks: str, filler: str, gap: str = " ") -> Writing:
    return Writing(
        name,
        tuple(tuple(way.strip() for way in task.split(",")) for task in tasks.strip().split("\n")),
        tuple(filler.split()),
        gap,
    )


WRITINGS = (
    _writing(
        "English",
        """translate this, translating it, a translation
        summarize it, short summary, summarizing this
        fix the bug, fixing bugs, a bugfix please
        write a poem, some poetry, poems about it""",
        """the house river morning committee met nothing was decided about old bridge new road people market winter
        garden window letter station answer question water paper money friend doctor school music table light
        evening country street kitchen number story summer village picture""",
    ),
    _writing(
        "German",
        """übersetze das, eine Übersetzung, beim Übersetzen
        fasse zusammen, Zusammenfassung bitte, kurz zusammengefasst
        behebe den Fehler, Fehlerbehebung, fehlerhaft behoben
        schreibe ein Gedicht, Gedichte darüber, etwas Dichtung""",
        """das Haus der Fluss am Morgen und nichts wurde entschieden über die alte Brücke neue Straße Leute Markt
        Winter Garten Fenster Brief Bahnhof Antwort Frage Wasser Papier Geld Freund Arzt Schule Musik Tisch Licht
        Abend Land Küche Zahl Geschichte Sommer Dorf Bild""",
    ),
    _writing(
        "Russian",
        """переведи это, перевод текста, переводить надо
        сократи текст, краткое изложение, изложи кратко
        исправь ошибку, исправление ошибок, ошибка исправлена
        напиши стихи, стихотворение о нём, немного стихов""",
        """дом река утро комитет ничего не решил старый мост новая дорога люди рынок зима сад окно письмо вокзал ответ
        вопрос вода бумага деньги друг врач школа музыка стол свет вечер страна улица кухня число история лето
        деревня картина""",
    ),
    _writing(
        "Arabic",
        """ترجم هذا, ترجمة النص, مترجم الآن
        لخص هذا, ملخص قصير, تلخيص النص
        أصلح الخطأ, إصلاح الأخطاء, تصحيح خطأ
        اكتب قصيدة, قصائد عنه, بعض الشعر""",
        """البيت النهر صباح اللجنة شيء قرار الجسر القديم طريق جديد الناس السوق شتاء حديقة نافذة رسالة محطة جواب سؤال ماء
        ورق مال صديق طبيب مدرسة موسيقى طاولة ضوء مساء بلد شارع مطبخ رقم قصة صيف قرية صورة""",
    ),
    _writing(
        "Hindi",
        """अनुवाद करो, अनुवादित करें, इसका अनुवाद
        सारांश लिखो, संक्षेप में, संक्षिप्त सार
        गलती सुधारो, त्रुटि ठीक करो, सुधार करें
        कविता लिखो, कविताएँ सुनाओ, थोड़ी कविता""",
        """घर नदी सुबह समिति कुछ नहीं तय पुराना पुल नई सड़क लोग बाज़ार सर्दी बगीचा खिड़की पत्र स्टेशन उत्तर प्रश्न पानी काग़ज़
        पैसा मित्र डॉक्टर विद्यालय संगीत मेज़ रोशनी शाम देश गली रसोई संख्या कहानी गर्मी गाँव चित्र""",
    ),
    _writing(
        "Chinese",
        """请翻译, 翻译成英文, 译文
        请总结, 写摘要, 概括内容
        修复错误, 改正程序, 排除故障
        写一首诗, 作诗, 诗歌创作""",
        """房子 河流 早晨 委员会 没有 决定 旧桥 新路 人们 市场 冬天 花园 窗户 信件 车站 回答 问题 水 纸 钱 朋友 医生 学校 音乐
        桌子 灯光 晚上 国家 街道 厨房 数字 故事 夏天 村庄 图片""",
        "",
    ),
    _writing(
        "Japanese",
        """翻訳して, 訳してください, 英訳を頼む
        要約して, まとめてください, 概要を書いて
        バグを直して, 修正してください, 不具合の修正
        詩を書いて, ポエムを作って, 詩作を頼む""",
        """家は 川の 朝に 委員会が 何も 決めずに 古い橋 新しい道 人々 市場で 冬の 庭を 窓から 手紙 駅まで 答え 質問 水を 紙に お金
        友達と 医者 学校の 音楽 机の 明かり 夕方 国の 通り 台所 数字 物語 夏に 村の 絵を""",
        "",
    ),
    _writing(
        "Korean",
        """번역해 줘, 번역하세요, 번역을 부탁
        요약해 줘, 요약하세요, 간단히 요약을
        버그를 고쳐, 오류를 고치세요, 버그가 있어
        시를 써 줘, 시를 지어, 짧은 시가""",
        """집은 강의 아침에 위원회가 아무것도 결정하지 오래된 다리 새로운 길을 사람들 시장에서 겨울 정원을 창문 편지 역까지 대답
        질문 물을 종이 돈을 친구와 의사 학교의 음악 책상 불빛 저녁 나라의 거리 부엌 숫자 이야기 여름에 마을 그림""",
    ),
    _writing(
        "Thai",
        """ช่วยแปล, แปลภาษา, คำแปล
        ช่วยสรุป, สรุปสั้น, บทสรุป
        แก้บั๊ก, แก้ไขข้อผิดพลาด, ซ่อมโปรแกรม
        เขียนกลอน, แต่งกลอน, บทกวี""",
        """บ้าน แม่น้ำ ตอนเช้า คณะกรรมการ ไม่มี ตัดสินใจ สะพานเก่า ถนนใหม่ ผู้คน ตลาด ฤดูหนาว สวน หน้าต่าง จดหมาย สถานี คำตอบ
        คำถาม น้ำ กระดาษ เงิน เพื่อน หมอ โรงเรียน ดนตรี โต๊ะ แสงไฟ ตอนเย็น ประเทศ ถนน ครัว ตัวเลข เรื่องราว ฤดูร้อน หมู่บ้าน
        รูปภาพ""",
        "",
    ),
    _writing(
        "emoji",
        """🌐🔤, 🔤➡️, 🌐🗣️
        ✂️📄, 📄🤏, ✂️📝
        🐛🔧, 🔧💻, 🐛🔨
        🌹✍️, ✍️🎭, 🌹🎶""",
        """🏠 🌊 🌅 👥 ❌ 🤷 🌉 🛣️ 🧑 🛒 ❄️ 🌳 🪟 ✉️ 🚉 💬 ❓ 💧 📰 💰 👫 🩺 🏫 🎵 🪑 💡 🌆 🗺️ 🏙️ 🍳 🔢 📖 ☀️ 🏡 🖼️ 🐶 🍎 🚗 ⚽ 🎂""",
        "",
    ),
    _writing(
        "mixed",
        """translate das bitte, 翻译 this, übersetze it 🌐
        summary 要約 bitte, fasse this zusammen, kurz 总结
        fix den bug 🐛, 修复 the error, Fehler im code
        write ein Gedicht, 诗 about it, poem 詩を bitte""",
        """the Haus 河流 morning Ausschuss 没有 decided alte 桥 new Straße 人们 Markt winter 花园 window Brief 車站 answer Frage
        水 paper Geld friend 医生 school Musik 机 light Abend 国家 street Küche 数字 story Sommer 村 picture 🏠 🌊 💡""",
    ),
    _writing(
        "code",
        """translate_to(lang), i18n.translate(s), locale.translate()
        summarize(doc), doc.summary(), make_summary(x)
        fix_bug(issue), debug(trace), bugfix.apply()
        poem = write(), poetry.compose(), verses(poem)""",
        """def self return for in range(10): x = y[i] + 1 if else: None import os print(x) while True: lambda k: class Node:
        assert len(xs) == n try: except ValueError: {} [] with open(path) as f: yield not is break += -= await async""",
    ),
)
